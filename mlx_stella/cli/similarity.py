"""``mlx-stella similarity``: how alike two texts are.

$ mlx-stella similarity "It's so sunny outside!" "The weather is lovely today." -m all-minilm-l6-v2
0.6660
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import say

if TYPE_CHECKING:
    import numpy as np


def similarity(
    a: Annotated[str, typer.Argument(metavar="A", help="One text.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False)],
    model: options.Model = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The prompts of a task: s2s or sts before both texts; s2p, say, before A, a "
            "question, to which B is a passage (default: no prompt).",
        ),
    ] = None,
    dim: options.Dim = None,
    truncate_dim: options.TruncateDim = None,
    dtype: options.Dtype = None,
) -> None:
    """Print the similarity of two texts, embedded without a prompt, or as a task has it."""
    from mlx_stella import load

    encoder = load(options.required(model), dtype=dtype)
    settings = encoder.settings(dim=dim, truncate_dim=truncate_dim)
    prefixes = (settings.prefix,) * 2
    if task is not None:
        prefixes = encoder.checkpoint.prompts.for_pair(task)
    first, second = (
        cast("np.ndarray", encoder.encode(text, settings=replace(settings, prefix=prefix)))
        for text, prefix in zip((a, b), prefixes, strict=True)
    )
    say(f"{encoder.similarity(first, second).item():.4f}")
