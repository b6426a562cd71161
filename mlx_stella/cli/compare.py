"""``mlx-stella compare``: how close the vectors of two models are.

$ mlx-stella compare all-minilm-l6-v2 minilm-4bit
|  dim | mean cosine | ...
"""

from typing import Annotated

import typer

from mlx_stella.cli.progress import progress_bar
from mlx_stella.cli.terminal import say


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model: alias, Hub id or directory.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, compared with the first.")],
    texts: Annotated[
        str | None,
        typer.Option(help="Texts to compare on: .txt or .jsonl (default: a built-in set)."),
    ] = None,
) -> None:
    """Compare the vectors of two models on the same texts, for each size both have."""
    from mlx_stella.checkpoint import hub
    from mlx_stella.checkpoint.checkpoint import open_checkpoint
    from mlx_stella.cli.comparison_texts import evaluation_texts
    from mlx_stella.conversion.card import table
    from mlx_stella.evaluation.closeness import compare as compare_models

    chosen = evaluation_texts(texts)
    sources = [hub.resolve(name) for name in (a, b)]
    first, second = (open_checkpoint(source.directory, source.entry) for source in sources)
    with progress_bar("Comparing", len(chosen.texts)) as progress:
        rows = compare_models(first, second, chosen.texts, progress)
    say(*table(rows))
    say(f"{len(chosen.texts)} texts: {chosen.source}")
