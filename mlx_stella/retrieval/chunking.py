"""Texts to chunks that the model can read whole, cut where Markdown and code have joints.

The sizes are counted by the model's own tokenizer; the joints are semantic-text-splitter's.
"""

import bisect
import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlx_stella.retrieval.reading import Passage
from mlx_stella.tokenization import Tokenizer

_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "rust": ("tree_sitter_rust", "language"),
    "go": ("tree_sitter_go", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
    "swift": ("tree_sitter_swift", "language"),
    "bash": ("tree_sitter_bash", "language"),
}
_MARKDOWN_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r"^ {0,3}(?:(=+)|-+)[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)")
_NO_PARAGRAPH = re.compile(r"^ {0,3}(?:[>|<]|[-+*][ \t]|\d{1,9}[.)][ \t])|^(?: {4}|\t)")
"""Quotes, tables, HTML, lists and indented code: a line of dashes below is not their underline."""
_FRONT_MATTER = re.compile(r"---[ \t\r]*\n(?=\S).*?^---[ \t\r]*$\n?", re.MULTILINE | re.DOTALL)

_MODIFIERS = (
    r"^[ \t]*(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|"
    r"pub(?:\([a-z]+\))?|open|override|unsafe|extern|const|typedef|declare|sealed)[ \t]+)*"
)
_KEYWORDS = {
    "javascript": "function|class",
    "typescript": "function|class|interface|enum|namespace",
    "rust": "fn|struct|enum|union|trait|impl|mod",
    "go": "func|type",
    "c": "struct|enum|union",
    "cpp": "class|struct|enum|union|namespace",
    "java": "class|interface|enum|record",
    "swift": "func|class|struct|enum|protocol|extension|actor",
    "bash": "function",
}
_DEFINITIONS = {
    language: re.compile(rf"{_MODIFIERS}(?:{keywords})\b[^\n{{:;]*", re.MULTILINE)
    for language, keywords in _KEYWORDS.items()
}
_PYTHON_DEFINITION = re.compile(
    r"[ \t]*((?:(?:async[ \t]+)?def|class)[ \t]+\w+(?=[ \t]*[\[(:])[^\n{:;]*)"
)

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
        headings = _headings(passage)
        starts = [start for start, _ in headings]
        for start, chunk in self._pieces(text, passage.kind):
            if not chunk.strip():
                continue
            above = bisect.bisect_right(starts, start)
            heading = headings[above - 1][1] if above else passage.heading
            first = bisect.bisect_left(newlines, start)
            last = first + chunk.rstrip().count("\n")
            lines = passage.row or [_line(passage, number) for number in (first, last)]
            yield Chunk(chunk, *lines, heading, passage.record)

    def _pieces(self, text: str, kind: str) -> Iterator[tuple[int, str]]:
        """Position and text of each chunk."""
        if kind == "text" and self._fits(text):
            yield len(text) - len(text.lstrip()), text.strip()
            return
        splitter, start = self._splitter(kind), 0
        while start < len(text):
            end = _block_end(text, start)
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
            if kind == "markdown":
                make = splitters.MarkdownSplitter.from_huggingface_tokenizer_str
            elif kind in _GRAMMARS:
                module, function = _GRAMMARS[kind]
                language = getattr(importlib.import_module(module), function)()
                make = splitters.CodeSplitter.from_huggingface_tokenizer_str
                settings = (language, *settings)
            else:
                make = splitters.TextSplitter.from_huggingface_tokenizer_str
            self._splitters[kind] = make(*settings)
        return self._splitters[kind]


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


def _headings(passage: Passage) -> list[tuple[int, str]]:
    """Position in the text and words of each heading or definition, in order."""
    if passage.kind == "markdown":
        return _markdown_headings(passage.text)
    if passage.kind == "python":
        return _python_headings(passage.text)
    if passage.kind in _DEFINITIONS:
        found = _DEFINITIONS[passage.kind].finditer(passage.text)
        return [(match.start(), " ".join(match.group().split())) for match in found]
    return []


def _python_headings(text: str) -> list[tuple[int, str]]:
    """A definition ends where a line is indented no deeper, but for what closes its brackets."""
    found, inside, position = [], [], 0
    for line in text.splitlines(keepends=True):
        words = line.strip()
        if words and words[0] not in "#)]}":
            indent, around = len(line) - len(line.lstrip()), len(inside)
            inside = [(depth, heading) for depth, heading in inside if depth < indent]
            match = _PYTHON_DEFINITION.match(line)
            if match:
                inside.append((indent, " ".join(match.group(1).split())))
            if match or len(inside) < around:
                found.append((position, inside[-1][1] if inside else ""))
        position += len(line)
    return found


def _markdown_headings(text: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    levels: list[tuple[int, str]] = []

    def add(start: int, level: int, title: str) -> None:
        levels[:] = [(depth, above) for depth, above in levels if depth < level]
        levels.append((level, title))
        found.append((start, " > ".join(title for _, title in levels)))

    front = _FRONT_MATTER.match(text)
    position = front.end() if front else 0
    fence, begins, paragraph = "", True, None
    for line in text[position:].splitlines(keepends=True):
        words = line.rstrip("\r\n")
        mark, heading = _FENCE.match(words), _MARKDOWN_HEADING.match(words)
        underline = _UNDERLINE.match(words)
        above, paragraph = paragraph, None  # of one line: longer ones are hardly meant as titles
        if fence:
            if mark and mark.group(1).startswith(fence) and not mark.group(2).strip():
                fence = ""
        elif mark:
            fence = mark.group(1)
        elif heading:
            add(position, len(heading.group(1)), heading.group(2))
        elif underline and above:
            add(above[0], 1 if underline.group(1) else 2, above[1])
        elif begins and words.strip() and not _NO_PARAGRAPH.match(words):
            paragraph = position, words.strip()
        begins = not words.strip() or bool(mark or heading or underline)
        position += len(line)
    return found
