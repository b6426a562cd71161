"""What stands above a piece of a text: headings of Markdown, definitions of code."""

import re

from mlx_stella.retrieval.reading import Passage

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


def headings_of(passage: Passage) -> list[tuple[int, str]]:
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
