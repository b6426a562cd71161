"""HTML to text with headings as Markdown has them, and the line of the source of each line.

Tags are found as the HTML standard's tokenizer finds them. No library serves here: those that build
a tree lose the lines of the source or take time that grows with the square of a page, as
html.parser of Python 3.11 does, which also raises errors of its own.
"""

import html
import re

_SILENT = {"template", "noscript", "svg"}
_RAW = {tag: re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE) for tag in ("script", "style")}
"""Elements without markup in them, and where they end."""
_BLOCKS = set(
    "address article aside blockquote body br dd div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table td th title tr ul".split()
)
_MARKUP = re.compile(
    r"""<(?:
      !--(?:-?>|.*?(?:--!?>|\Z))                             # a comment
    | (?P<end>/?)(?P<name>[a-zA-Z][^\s/>]*+)                 # a tag
      (?:[^>=]++|=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>]*+))*+>?
    | [!?/][^>]*+>?                                          # a doctype or what is no markup
    )""",
    re.DOTALL | re.VERBOSE,
)
"""What is not closed goes on to the end of the page, so that nothing is read twice."""
_LONG_NUMBER = re.compile(r"&#[0-9]{99,};?")
"""A reference that Python cannot read as a number."""


def html_to_text(source: str) -> tuple[str, list[int]]:
    """The words of a page; for each line of them its line in the source, counted from 1.

    Headings become ``# ...``, blocks are parted by empty lines; scripts and styles are left out.
    Besides these a head holds no words but the title, and its own tags may be missing.
    """
    page, position = _Page(), 0
    while markup := _MARKUP.search(source, position):
        page.add_text(source[position : markup.start()])
        position = markup.end()
        name = (markup["name"] or "").lower()
        if markup["end"]:
            page.end_tag(name)
        elif markup[0].endswith("/>"):  # <script/> opens nothing
            page.end_block_of(name)
        elif name in _RAW:
            end = _RAW[name].search(source, position)
            position = end.start() if end else len(source)
        elif name:
            page.start_tag(name)
        page.skip(source[markup.start() : position])
    page.add_text(source[position:])
    page.end_block()
    return "\n".join(page.lines), page.numbers


class _Page:
    """The lines of a page so far, and the line that is begun."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self._at = 1
        """The line of the source that is read."""
        self._line: list[str] = []
        self._is_blank, self._number, self._prefix = True, 1, ""
        self._silent, self._depth = "", 0
        """The outermost element that is left out, and how many of its kind are open."""

    def skip(self, markup: str) -> None:
        self._at += markup.count("\n")

    def start_tag(self, tag: str) -> None:
        if tag == "body":
            self._silent = ""  # a noscript of the head that was never closed
        elif tag in _SILENT and self._silent in ("", tag):
            self._depth = self._depth + 1 if self._silent else 1
            self._silent = tag
        self.end_block_of(tag)
        if tag in _BLOCKS and len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self._prefix = "#" * int(tag[1]) + " "

    def end_tag(self, tag: str) -> None:
        if self._silent == tag:
            self._depth -= 1
            if not self._depth:
                self._silent = ""
        self.end_block_of(tag)

    def add_text(self, source: str) -> None:
        for offset, words in enumerate(source.split("\n")):
            self._at += bool(offset)
            if not self._silent:
                self._add_line(words, is_next=bool(offset))

    def _add_line(self, words: str, is_next: bool) -> None:
        if "&" in words:
            words = html.unescape(_LONG_NUMBER.sub("\ufffd", words))
        for count, part in enumerate(words.split("\n")):
            if is_next or count:
                if self._prefix:
                    self._line.append(" ")  # a heading stays on one line
                else:
                    self._end_line()
            if self._is_blank and part.strip():
                self._is_blank, self._number = False, self._at
            self._line.append(part.rstrip("\r"))

    def end_block_of(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.end_block()

    def end_block(self) -> None:
        """Finish the line and leave an empty one."""
        self._end_line()
        self._prefix = ""
        if self.lines and self.lines[-1]:
            self._append("")

    def _end_line(self) -> None:
        if not self._is_blank:
            line = "".join(self._line)
            self._append(self._prefix + line.strip() if self._prefix else line)
        self._line, self._is_blank = [], True

    def _append(self, line: str) -> None:
        self.lines.append(line)
        self.numbers.append(self._number)
