"""A file to its texts: plain text, Markdown, code, HTML, PDF; files of rows are in rows.py."""

import codecs
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_stella.errors import InputError
from mlx_stella.files.tables import read_rows, refuse
from mlx_stella.retrieval.html import html_to_text
from mlx_stella.retrieval.pdf import pdf_pages
from mlx_stella.retrieval.scanning import ROW_ENDINGS, SourceFile

_KINDS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".htm": "html",
    ".html": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".rs": "rust",
    ".go": "go",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".java": "java",
    ".swift": "swift",
    ".sh": "bash",
    ".bash": "bash",
}
_SNIFFED_BYTES = 8192


@dataclass(frozen=True)
class Passage:
    """A text of a file, to be cut into chunks.

    Attributes:
        text: the words; kind: "text", "markdown" or a programming language, which says where it
            may be cut.
        lines: for each line of the text its line in the file, counted from 1; None where they are
            the same, and for a row.
        row: the first and last line of a row, which are those of all its chunks.
        record: the row's id, or "".
        heading: what stands above it, or "".
    """

    text: str
    kind: str = "text"
    lines: Sequence[int] | None = None
    row: tuple[int, int] | None = None
    record: str = ""
    heading: str = ""


class NotText(Exception):
    """The file is of a kind that is left out; the reason in words."""


def kind_of(path: Path) -> str:
    """ "rows", "pdf", "html", "markdown", a programming language, or "text"."""
    ending = path.suffix.lower()
    return "rows" if ending in ROW_ENDINGS else _KINDS.get(ending, "text")


def content_hash(file: SourceFile, fields: Sequence[str]) -> str:
    """A hash of a file's bytes and of how they are read, 32 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if kind_of(file.path) == "rows":
        digest.update(repr(_columns(file, fields)).encode())
    with file.path.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read(
    file: SourceFile, fields: Sequence[str], fail: Callable[[InputError], None] = refuse
) -> Iterator[Passage]:
    """The passages of a file, in order.

    Args:
        fields: of a file of rows, the columns that make up a text; empty for "text", and for
            "title" and "text" in a BEIR folder.
        fail: told of each row that has no text, which is passed over; by default it is raised.

    Raises:
        NotText: the file is binary.
        InputError: it is not what its name says; the reason is for people, without the name.
        OSError: it cannot be read.
    """
    kind = kind_of(file.path)
    if kind == "rows":
        optional = ("title",) if file.is_beir else ()
        for row in read_rows(file.path, _columns(file, fields), optional, fail=fail):
            last = row.line + row.lines - 1
            yield Passage(row.text, row=(row.line, last), record=row.record)
        return
    content = file.path.read_bytes()
    if kind == "pdf":
        for number, text in enumerate(pdf_pages(content), start=1):
            yield Passage(text, heading=f"page {number}")
    elif kind == "html":
        text, lines = html_to_text(_decode(content, True))
        yield Passage(text, "markdown", lines)
    else:
        text = _decode(content, file.path.suffix.lower() in _KINDS | {".txt": "", ".rst": ""})
        yield Passage(text, kind)


def _columns(file: SourceFile, fields: Sequence[str]) -> tuple[str, ...]:
    """What makes up a text: the same file has titles once it is the corpus of a BEIR folder."""
    return tuple(fields) or (("title", "text") if file.is_beir else ("text",))


def _decode(content: bytes, is_known_text: bool) -> str:
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"  # whose mark begins as the next one does
    elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content[:_SNIFFED_BYTES]:
        raise NotText("binary")
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if not is_known_text:
            raise NotText("binary, or text in an encoding other than UTF-8") from None
        raise InputError(
            f"not {encoding.removesuffix('-sig').upper()} (byte {error.start})",
            remedy="convert it, for example with iconv -f latin1 -t utf-8",
        ) from None
