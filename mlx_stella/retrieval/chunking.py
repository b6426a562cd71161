"""Texts to chunks that the model can read whole, cut where Markdown and code have joints.

The sizes are counted by the model's own tokenizer; the joints are semantic-text-splitter's.
"""

import bisect
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_stella.checkpoint.tokenization import Tokenizer
from mlx_stella.retrieval.headings import markdown_headings
from mlx_stella.retrieval.reading import Passage
from mlx_stella.retrieval.syntax import grammar, is_code, outline

BLOCK = 2**18
"""Characters of a text that are split at once. Where a text has no joints, as minified code has
none, the splitter's time grows faster than its length: 2 s for a block, 14 s for four in one."""

_LONG_TOKEN = 16
"""Characters; a text whose tokens are longer on average is left to the splitter."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a file that gets a vector.

    Attributes:
        text: at most the chosen number of tokens.
        start_line, end_line: where it stands, counted from 1, both included.
        heading: the headings above it, "A > B"; for code the definition it lies in.
        record: the id of the row it comes from, or "".
    """

    text: str
    start_line: int
    end_line: int
    heading: str
    record: str

    @property
    def text_hash(self) -> str:
        """32 hexadecimal digits; chunks of the same text share one vector."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


class Chunker:
    """Cuts passages.

    Args:
        tokenizer: the model's.
        tokens: at most so many in a chunk, without special tokens.
        overlap: about so many are repeated from the chunk before.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int):
        self._tokenizer, self._tokens, self._overlap = tokenizer, tokens, overlap
        self._splitters: dict[str, Any] = {}

    def chunks(self, passage: Passage) -> Iterator[Chunk]:
        """The chunks of a passage, in order; none for one that holds only white space."""
        text = passage.text
        if not text.strip():
            return
        newlines = [match.start() for match in re.finditer("\n", text)]
        headings, deep = _headings(passage)
        starts = [start for start, _ in headings]
        for start, chunk in self._pieces(text, passage.kind, deep):
            if not chunk.strip():
                continue
            above = bisect.bisect_right(starts, start)
            heading = headings[above - 1][1] if above else passage.heading
            first = bisect.bisect_left(newlines, start)
            last = first + chunk.rstrip().count("\n")
            start_line, end_line = passage.row or (_line(passage, first), _line(passage, last))
            yield Chunk(chunk, start_line, end_line, heading, passage.record)

    def _pieces(self, text: str, kind: str, deep: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Position and text of each chunk; code that is nested too deep is cut as prose is."""
        if kind == "text" and self._fits(text):
            yield len(text) - len(text.lstrip()), text.strip()
            return
        start = 0
        while start < len(text):
            end = _block_end(text, start)
            first, last = bisect.bisect_right(deep, start), bisect.bisect_left(deep, end)
            splitter = self._splitter("text" if first < last or first % 2 else kind)
            for position, chunk in splitter.chunk_indices(text[start:end]):
                yield start + position, chunk
            start = end

    def _fits(self, text: str) -> bool:
        """Whether a text is one chunk; the splitter takes thrice as long to find that."""
        likely = len(text) <= _LONG_TOKEN * self._tokens
        return likely and self._tokenizer.count(text) <= self._tokens

    def _splitter(self, kind: str) -> Any:
        if kind not in self._splitters:
            import semantic_text_splitter as splitters

            settings = (self._tokenizer.definition, self._tokens, self._overlap)
            splitter: splitters.MarkdownSplitter | splitters.CodeSplitter | splitters.TextSplitter
            if kind == "markdown":
                splitter = splitters.MarkdownSplitter.from_huggingface_tokenizer_str(*settings)
            elif is_code(kind):
                splitter = splitters.CodeSplitter.from_huggingface_tokenizer_str(
                    grammar(kind), *settings
                )
            else:
                splitter = splitters.TextSplitter.from_huggingface_tokenizer_str(*settings)
            self._splitters[kind] = splitter
        return self._splitters[kind]


def _headings(passage: Passage) -> tuple[list[tuple[int, str]], Sequence[int]]:
    """Position and words of what stands above a piece of a text; what is nested too deep."""
    if passage.kind == "markdown":
        return markdown_headings(passage.text), ()
    if is_code(passage.kind):
        return outline(passage.text, passage.kind)
    return [], ()


def _block_end(text: str, start: int) -> int:
    """Where a block of at most BLOCK characters ends: behind a line, a word, or in one."""
    end = start + BLOCK
    if end >= len(text):
        return len(text)
    for joint in ("\n", " "):
        if (found := text.rfind(joint, start, end)) >= 0:
            return found + 1
    return end


def _line(passage: Passage, number: int) -> int:
    """The line of the file for a line of the text, the latter counted from 0."""
    return number + 1 if passage.lines is None else passage.lines[number]
