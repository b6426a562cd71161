"""``mlx-stella export``: an index's texts and vectors as a file for other programs.

$ mlx-stella export notes.index --output notes.parquet
"""

from pathlib import Path
from typing import Annotated

import typer

from mlx_stella.cli.terminal import tell


def export(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="As `index` made it.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A .parquet file, or .npy with a .rows.jsonl beside it."
        ),
    ],
    overwrite: Annotated[bool, typer.Option(help="Replace the output files.")] = False,
) -> None:
    """Write all chunks of an index and their vectors."""
    from mlx_stella import Index  # needs the extra search

    rows = Index.open(index).export(output, overwrite=overwrite)
    tell(f"{rows} chunks in {output}")
