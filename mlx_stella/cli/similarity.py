"""``mlx-stella similarity``: how alike two texts are.

$ mlx-stella similarity "It's so sunny outside!" "The weather is lovely today." -m all-minilm-l6-v2
0.6660
"""

from typing import Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import say


def similarity(
    a: Annotated[str, typer.Argument(metavar="A", help="One text.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False)],
    model: options.Model = None,
    dim: options.Dim = None,
    truncate_dim: options.TruncateDim = None,
    dtype: options.Dtype = None,
) -> None:
    """Print the similarity of two texts, embedded without a prompt."""
    from mlx_stella import load

    encoder = load(options.required(model), dtype=dtype)
    first, second = encoder.encode([a, b], dim=dim, truncate_dim=truncate_dim)
    say(f"{encoder.similarity(first, second).item():.4f}")
