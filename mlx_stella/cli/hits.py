"""Hits of a search as a table for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlx_stella.cli.terminal import say, tell

if TYPE_CHECKING:
    from mlx_stella.retrieval.store import Hit

_WIDTH = 100


def print_hits(hits: "Sequence[Hit]", words: str, nothing: str = "nothing found") -> None:
    """Print two lines a hit: where it stands, and what of it answers the words of a question.

    Args:
        nothing: what is told where there is no hit.
    """
    from mlx_stella.retrieval.ranking import snippet

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


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
