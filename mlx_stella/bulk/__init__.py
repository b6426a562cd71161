"""Many texts into numbered Parquet parts, resumable, by one process or several machines."""
