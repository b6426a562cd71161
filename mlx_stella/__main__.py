"""``python -m mlx_stella``, the same as ``mlx-stella``."""

from mlx_stella.cli import main

main()
