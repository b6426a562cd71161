"""What this machine offers a process: a fast BLAS, memory, optional packages."""
