"""``mlx-stella index``: a folder of files into an index that can be searched.

$ mlx-stella index notes --to notes.index --model all-minilm-l6-v2
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import tell
from mlx_stella.errors import InputError, StellaError

if TYPE_CHECKING:
    from mlx_stella.retrieval.scanning import Note

_LISTED = 10


def index(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Folders and files; -- before one that starts with -."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(help="The index: a folder, s3://... or qdrant+http://HOST:6333/COLLECTION."),
    ],
    model: options.Model = None,
    dim: options.Dim = None,
    truncate_dim: options.TruncateDim = None,
    glob: Annotated[
        list[str] | None, typer.Option(help="Only files of such names, '*.md' say; repeatable.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="Of .jsonl, .csv, .parquet: the text (default: text); repeatable."),
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a chunk (default: what the model reads).")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Tokens repeated from chunk to chunk (default: an eighth).")
    ] = None,
    dtype: options.Dtype = None,
) -> None:
    """Make an index of files, or bring one up to date.

    Only what is new or changed is embedded. A run that was stopped, however it was, is taken up
    where it had come to. Respects .gitignore; leaves out hidden and binary files.
    """
    from mlx_stella import Index  # needs the extra search
    from mlx_stella.cli.progress import files_bar

    if not to:
        raise InputError("--to is empty", remedy="name a folder")
    index = Index.create(
        to,
        model,
        dim=dim,
        truncate_dim=truncate_dim,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        dtype=dtype,
        exist_ok=True,
    )
    if index.is_new:
        options.required(model)
    with ExitStack() as stack:
        report = index.update(
            paths,
            globs=glob or (),
            fields=field or (),
            progress=lambda files: stack.enter_context(files_bar("Indexing", files)),
        )
    _list("skipped", report.skipped, to)
    _list("failed", report.failed, to)
    _list("bad row", report.bad_rows, to)
    tell(
        f"{report.files} files in {to}: {report.unchanged} unchanged, {report.embedded} chunks "
        f"embedded, {report.reused} reused, {report.removed} files removed"
    )
    if report.failed or report.bad_rows:
        bad = len({note.key for note in report.bad_rows})
        rows = f", {bad} lack rows that cannot be read" if bad else ""
        raise StellaError(
            f"{len(report.failed)} of {report.found} files failed{rows}",
            remedy="mend them and run it again",
        )


def _list(what: str, notes: "Sequence[Note]", to: str) -> None:
    for note in notes[:_LISTED]:
        tell(f"{what}: {note.key.name}: {note.reason}")
    if len(notes) > _LISTED:
        more = len(notes) - _LISTED
        tell(f"{what}: {more} more; mlx-stella status {to} --json lists them")
