"""HTML to text with headings as Markdown has them, and the line of the source of each line."""

from html.parser import HTMLParser

_SILENT = {"script", "style", "template", "noscript", "svg"}
_BLOCKS = set(
    "address article aside blockquote body br dd div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table td th title tr ul".split()
)


def html_to_text(source: str) -> tuple[str, list[int]]:
    """The words of a page; for each line of them its line in the source, counted from 1.

    Headings become ``# ...``, blocks are parted by empty lines; scripts and styles are left out.
    Besides these a head holds no words but the title, and its own tags may be missing.
    """
    parser = _Text()
    parser.feed(source)
    parser.close()
    parser.end_block()
    return "\n".join(parser.lines), parser.numbers


class _Text(HTMLParser):
    RCDATA_CONTENT_ELEMENTS = ()  # newer Pythons give an open title all that follows

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self._line, self._number, self._prefix = "", 1, ""
        self._silent: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "body":
            self._silent.clear()  # a noscript of the head that was never closed
        elif tag in _SILENT:
            self._silent.append(tag)
        if tag in _BLOCKS:
            self.end_block()
            if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
                self._prefix = "#" * int(tag[1]) + " "

    def handle_startendtag(self, tag, attrs):
        if tag in _BLOCKS:  # <script/> opens nothing
            self.end_block()

    def handle_endtag(self, tag):
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass
        elif tag in _BLOCKS:
            self.end_block()

    def handle_data(self, data):
        if self._silent:
            return
        first = self.getpos()[0]
        for offset, part in enumerate(data.split("\n")):
            if offset and not self._prefix:
                self._end_line()  # a heading stays on one line
            if part.strip() and not self._line.strip():
                self._number = first + offset
            self._line += " " * bool(offset and self._prefix) + part.rstrip("\r")

    def end_block(self) -> None:
        """Finish the line and leave an empty one."""
        self._end_line()
        self._prefix = ""
        if self.lines and self.lines[-1]:
            self._append("")

    def _end_line(self) -> None:
        if self._line.strip():
            self._append(self._prefix + self._line.strip() if self._prefix else self._line)
        self._line = ""

    def _append(self, line: str) -> None:
        self.lines.append(line)
        self.numbers.append(self._number)
