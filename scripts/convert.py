"""Convert a model: ``mlx-stella convert`` by another name."""

import sys

from mlx_stella.cli import main

sys.argv.insert(1, "convert")
main()
