"""Many texts into numbered Parquet parts, resumable, by one process or several machines."""

from mlx_stella.bulk.parts import read_vectors

__all__ = ["read_vectors"]
