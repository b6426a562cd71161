"""A PDF to the text of its pages, in a time by its size.

What a single stream may hold is bounded by pypdf. But pages may share their streams, a page may
draw a form many times, and pypdf reads all fonts of a page or a form each time it comes to it: what
is drawn and what is read again is counted, before it is done.
"""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from pypdf import PageObject

_STEPS, _STEP_BYTES, _STEPS_A_SECOND = 250_000, 64, 50_000
"""What a PDF may draw beside one operator for each of its bytes: some seconds of work. White space
is work, too, and so are fonts, by the time of the processor that the first reading takes."""


def pdf_pages(content: bytes) -> Iterator[str]:
    """The text of each page.

    Raises:
        InputError: it is encrypted, no PDF, or takes too long.
    """
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("an encrypted PDF", remedy="save it without its password")
        work = _Work(_STEPS + len(content))
        for page in reader.pages:
            yield work.text(page).encode("utf-8", "replace").decode()
    except InputError:
        raise
    except Exception as error:  # pypdf raises whatever a damaged file makes it meet
        reason = str(error) or type(error).__name__
        raise InputError(f"no readable PDF ({reason})", remedy="save it again") from None


class _Work:
    def __init__(self, steps: int):
        self._left = steps
        self._fonts: dict[int, tuple[Any, int]] = {}  # by identity, which holds while it is kept

    def text(self, page: "PageObject") -> str:
        """The text of a page. Raises InputError if it takes more than is left."""
        own, form = self._fonts_of(page, page, set())
        self._take(own)
        if (drawn := page.get_contents()) is not None:
            self._take(len(drawn.get_data()) // _STEP_BYTES)

        def draw(operator: bytes, *_: object) -> None:
            self._take(1 + form if operator == b"Do" else 1)

        return page.extract_text(visitor_operand_before=draw)

    def _take(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise InputError("a PDF that draws the same too often", remedy="leave it out")

    def _fonts_of(self, page: "PageObject", holder: Any, seen: set[int]) -> tuple[int, int]:
        """Steps to read the fonts of a page or form, and of the costliest form below it."""
        seen.add(id(holder))
        resources = _dictionary(holder.get_inherited("/Resources", {}))
        own = sum(self._font(page, font) for font in _dictionary(resources.get("/Font")).values())
        most = 0
        for form in map(_resolved, _dictionary(resources.get("/XObject")).values()):
            if id(form) not in seen and hasattr(form, "get_inherited"):
                most = max(most, *self._fonts_of(page, form, seen))
        return own, most

    def _font(self, page: "PageObject", reference: Any) -> int:
        font = _resolved(reference)
        if id(font) not in self._fonts:
            start = time.thread_time()
            with suppress(Exception):  # pypdf tells again where it needs the font
                _read_font(page, font)
            steps = int((time.thread_time() - start) * _STEPS_A_SECOND)
            self._fonts[id(font)] = font, steps
            self._take(steps)
        return self._fonts[id(font)][1]


def _read_font(page: "PageObject", font: Any) -> None:
    """Have pypdf read a font, in a form that draws nothing."""
    from pypdf.generic import DictionaryObject, EncodedStreamObject, NameObject

    fonts = DictionaryObject({NameObject("/F"): font})
    form = EncodedStreamObject()
    form[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    page.extract_xform_text(form)


def _resolved(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _dictionary(value: Any) -> dict[Any, Any]:
    found = _resolved(value)
    return found if isinstance(found, dict) else {}
