"""``mlx-stella index``: a folder of files into an index that can be searched.

$ mlx-stella index notes --to notes.index --model all-minilm-l6-v2
"""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.errors import InputError, StellaError, StellaWarning

if TYPE_CHECKING:
    from mlx_stella.retrieval.scanning import Scan

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
    from mlx_stella.machine.packages import require

    require("search")
    from mlx_stella.loading import load_recorded
    from mlx_stella.retrieval.chunking import Chunker
    from mlx_stella.retrieval.opening import open_for_writing, open_store, read_stamp
    from mlx_stella.retrieval.sources import forget_sources, remember_sources, scan_sources
    from mlx_stella.retrieval.updating import index

    if not to:
        raise InputError("--to is empty", remedy="name a folder")
    store = open_store(to)
    found = scan_sources(store, paths, glob or (), None if "://" in to else Path(to))
    known = read_stamp(store)
    _check_found(found, paths, is_new=known is None)
    name = model if model or not known else known.origin.model
    dtype = dtype or (known.dtype if known else None)
    encoder = load_recorded(options.required(name), known.origin if known else None, dtype)
    with open_for_writing(store, encoder, name, dim, chunk_tokens, overlap) as stamp:
        remember_sources(store, found, field or [])
        chunker = Chunker(encoder.tokenizer, stamp.chunk_tokens, stamp.overlap)
        with _progress(len(found.files)) as tell:
            report = index(
                store,
                found,
                field or [],
                chunker,
                lambda texts: encoder.encode_document(texts, dim=stamp.dim),
                tell,
            )
        forget_sources(store, found)
    _list("skipped", report.skipped, to)
    _list("failed", report.failed, to)
    print(
        f"{report.files} files in {to}: {report.unchanged} unchanged, {report.embedded} chunks "
        f"embedded, {report.reused} reused, {report.removed} files removed",
        file=sys.stderr,
    )
    if report.failed:
        raise StellaError(
            f"{len(report.failed)} of {len(found.files)} files failed",
            remedy="mend them and run it again",
        )


def _check_found(found: "Scan", paths: list[Path], is_new: bool) -> None:
    """Say that there is nothing, rather than make an index of nothing."""
    if found.files or found.skipped or found.failed:
        return
    matching = f" that matches --glob {' or '.join(found.globs)}" if found.globs else ""
    if is_new:
        where = ", ".join(map(str, paths))
        raise InputError(f"no file{matching}", where=where, remedy="name others")
    if found.globs:
        warnings.warn(f"there is no file{matching}", StellaWarning, stacklevel=2)


def _list(what: str, notes, to: str) -> None:
    for note in notes[:_LISTED]:
        print(f"{what}: {options.printable(note.key.name)}: {note.reason}", file=sys.stderr)
    if len(notes) > _LISTED:
        more = len(notes) - _LISTED
        print(f"{what}: {more} more; mlx-stella status {to} lists them", file=sys.stderr)


def _progress(total: int):
    from mlx_stella.cli.progress import files_bar

    return files_bar("Indexing", total)
