"""What callers may pass: types for them, and checks that name what is wrong."""

import operator
from collections.abc import Callable, Iterable
from typing import Literal, TypedDict

from mlx_stella.encoding.progress import Progress
from mlx_stella.errors import InputError

OnLong = Literal["truncate", "error"]


class EncodeOptions(TypedDict, total=False):
    """What ``Encoder.encode`` takes besides texts and ``dims``; it says what each means."""

    prompt_name: str | None
    prompt: str | None
    instruction: str | None
    dim: int | None
    normalize: bool
    max_length: int | None
    on_long: OnLong
    max_batch_tokens: int | None
    progress: Callable[[Progress], None] | None


def rows(texts: Iterable[str]) -> list[str]:
    """The texts as a list.

    Raises:
        InputError: they are no iterable of strings.
    """
    if isinstance(texts, (bytes, bytearray)):
        raise InputError("texts are bytes", remedy="decode them, for example texts.decode()")
    try:
        return list(texts)
    except TypeError:
        raise InputError(
            f"texts are a {type(texts).__name__}", remedy="a string or a list of strings"
        ) from None


def whole(name: str, value: object, least: int, most: int) -> int:
    """The value as an int.

    Raises:
        InputError: it is no whole number from least to most.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise InputError(f"{name} {value!r} is no whole number from {least} to {most}")
    return number


def names_a_prompt(options: EncodeOptions) -> bool:
    """Whether the caller chose a prompt in one of the three ways."""
    return any(options.get(key) is not None for key in ("prompt_name", "prompt", "instruction"))
