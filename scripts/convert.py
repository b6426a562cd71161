"""Convert a model: the same as ``mlx-stella convert``.

$ python scripts/convert.py all-minilm-l6-v2 --bits 8 --dry-run
"""

import sys

from mlx_stella.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    main()
