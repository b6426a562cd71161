"""A file as an index holds it: its chunks joined, overlaps once, blank lines where they stood."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from mlx_stella.errors import InputError
from mlx_stella.retrieval.chunking import Chunk
from mlx_stella.retrieval.reading import kind_of
from mlx_stella.retrieval.sources import key_of
from mlx_stella.retrieval.store import Store, StoredChunk
from mlx_stella.retrieval.updating import stored_versions

_CLOSING = re.compile(r"[,.;:!?)\]}\u2e80-\uffef]")
"""Signs, those of Chinese and Japanese among them, that no space stands before."""

_OPENING = ("(", "[", "{", "_")
"""Signs that no space stands behind."""

_LIKELY = 8
"""Characters; where as many end one chunk and begin the next, that is an overlap, wherever."""


def read(
    store: Store, root: str | None, name: str, lines: tuple[int, int] | None, overlap: int
) -> str:
    """The text of a file, or of lines of it; see :meth:`mlx_stella.Index.read`.

    Args:
        root: None for the one root that has a file of this name.
        overlap: 0 where chunks were cut without one.

    Raises:
        InputError: there is no such file, or more than one, or no such line.
    """
    kind = kind_of(Path(name))
    if lines is not None:
        if not 1 <= lines[0] <= lines[1]:
            raise InputError(f"lines {lines[0]} to {lines[1]}", remedy="from 1, first to last")
        if kind == "pdf":
            fault, remedy = "lines of a PDF are counted on each page", "a hit's ref, or the whole"
            raise InputError(fault, where=name, remedy=remedy)
    rows = store.rows_of(name, root, lines)
    if not rows and lines is not None:  # blank ones, or none
        rows = store.rows_of(name, root)
        last = max((row.chunk.end_line for row in rows), default=lines[0])
        if last < lines[0]:
            raise InputError(f"no line {lines[0]}", where=name, remedy=f"from 1 to {last}")
    if not rows:
        raise _unknown(store, name)
    roots = sorted({row.key.root for row in rows})
    if len(roots) > 1:
        paths = ", ".join(f"{root.rstrip('/')}/{name}" for root in roots)
        raise InputError("several files have the name", where=name, remedy=f"one of {paths}")
    chunks = _of_one_version(rows)
    if kind in ("rows", "html", "pdf"):
        return join_passages(chunks, overlap)
    return join_lines(chunks, overlap, lines)


def find(store: Store, path: str, lines: tuple[int, int]) -> StoredChunk:
    """The passage of a file that has these lines, first and last, and no others.

    Raises:
        InputError: none has, or more than one.
    """
    root, name = key_of(store, path)
    rows = store.rows_of(name, root, lines)
    found = [row for row in rows if (row.chunk.start_line, row.chunk.end_line) == lines]
    if len(found) != 1:
        fault = f"{len(found)} passages have the lines {lines[0]} to {lines[1]}"
        raise InputError(fault, where=path, remedy="the ref of a hit")
    return found[0]


def _unknown(store: Store, name: str) -> InputError:
    """An error that says what is there."""
    known = sorted({key.name for key in stored_versions(store)})
    near = difflib.get_close_matches(name, known, n=3) or known[:3]
    remedy = f"one of its {len(known)}, such as {', '.join(near)}" if near else "index files"
    return InputError(f"no file {name!r} in the index", where=store.uri, remedy=remedy)


def _of_one_version(rows: Sequence[StoredChunk]) -> list[Chunk]:
    """The chunks of one version of a file, in order: of one that is whole, if there is one."""
    whole = {row.content_hash: False for row in rows}
    for row in rows:
        whole[row.content_hash] |= row.is_last
    chosen = max(whole, key=lambda name: (whole[name], name))
    rows = sorted((row for row in rows if row.content_hash == chosen), key=lambda row: row.number)
    return [row.chunk for row in rows]


def join_lines(chunks: Sequence[Chunk], overlap: int, lines: tuple[int, int] | None) -> str:
    """The text of a file whose chunks have its own lines.

    Args:
        overlap: 0 where chunks were cut without one.
        lines: first and last, of which the chunks are all that touch them; None for all.
    """
    pieces, before = [], None
    for chunk in chunks:
        if before is None:
            pieces.append("\n" * (chunk.start_line - 1))
        elif chunk.start_line > before.end_line:
            pieces += [before.text.rstrip(), "\n" * (chunk.start_line - before.end_line)]
        else:
            own = before.text.split("\n")[: chunk.start_line - before.start_line]
            start = sum(map(len, own)) + len(own)
            # Of a line that was cut.
            is_close = _CLOSING.match(chunk.text) or before.text.endswith(_OPENING)
            joint = "" if is_close else " "
            pieces.append(_until(before.text, chunk.text, start, overlap, joint))
        before = chunk
    text = "".join(pieces) + (before.text if before else "")
    if lines is None:
        return text
    return "\n".join(text.split("\n")[lines[0] - 1 : lines[1]])


def join_passages(chunks: Sequence[Chunk], overlap: int) -> str:
    """The text of a file of rows, a PDF or HTML: its passages, a blank line between them."""
    pieces, before = [], None
    for chunk in chunks:
        if before is not None:
            is_one = (chunk.record, chunk.heading) == (before.record, before.heading)
            text = _until(before.text, chunk.text, 0, overlap, "\n\n") if is_one else ""
            pieces.append(text or before.text + "\n\n")
        before = chunk
    return "".join(pieces) + (before.text if before else "")


def _until(text: str, following: str, start: int, overlap: int, joint: str) -> str:
    """A text up to where the following one begins in it; with a joint if it begins behind it.

    Args:
        start: where in the text it may begin.
    """
    for place in range(max(start, len(text) - len(following)), len(text) if overlap else 0):
        if following.startswith(text[place:]) and _is_overlap(text, following, place):
            return text[:place]
    return text + joint


def _is_overlap(text: str, following: str, place: int) -> bool:
    """Whether it is one, and not a letter that ends one word and begins the next by chance."""
    length = len(text) - place
    inside = (text[max(0, place - 1) : place + 1], following[length - 1 : length + 1])
    return length >= _LIKELY or not any(len(pair) == 2 and pair.isalnum() for pair in inside)
