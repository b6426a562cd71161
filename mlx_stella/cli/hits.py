"""Hits of a search, from here or from a server: as a table for people, as JSON for programs."""

from collections.abc import Sequence
from typing import Any, Protocol

from mlx_stella.cli.terminal import say, tell
from mlx_stella.retrieval.snippet import snippet

_WIDTH = 100


class Found(Protocol):
    """What is shown of :class:`mlx_stella.Hit`, which says what each is."""

    @property
    def score(self) -> float: ...
    @property
    def root(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def lines(self) -> tuple[int, int]: ...
    @property
    def heading(self) -> str: ...
    @property
    def record(self) -> str: ...
    @property
    def text(self) -> str: ...


def print_hits(hits: Sequence[Found], words: str, nothing: str = "nothing found") -> None:
    """Print two lines a hit: where it stands, and what of it answers the words of a question.

    Args:
        nothing: what is told where there is no hit.
    """
    if not hits:
        tell(nothing)
    is_one_root = len({hit.root for hit in hits}) == 1
    for hit in hits:
        name = hit.file if is_one_root else f"{hit.root}/{hit.file}"
        first, last = hit.lines
        lines = f"{first}-{last}" if last > first else f"{first}"
        record = f" {_short(hit.record)}" if hit.record else ""
        heading = f"  {_short(hit.heading)}" if hit.heading else ""
        say(f"{hit.score:.4f}  {name}:{lines}{record}{heading}")
        say("        " + snippet(hit.text, words, _WIDTH))


def as_object(hit: Found) -> dict[str, Any]:
    """A hit as an object of JSON."""
    return {
        "score": hit.score,
        "root": hit.root,
        "file": hit.file,
        "lines": list(hit.lines),
        "heading": hit.heading,
        "record": hit.record,
        "text": hit.text,
    }


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
