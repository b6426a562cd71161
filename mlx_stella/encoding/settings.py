"""How texts are embedded: what callers may say, checked once and kept in one object."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsIndex, TypedDict, get_args

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.errors import InputError

OnLong = Literal["truncate", "error"]


@dataclass(frozen=True)
class Settings:
    """How texts are embedded, with nothing left to decide. ``Encoder.settings`` makes them.

    Attributes:
        prefix: what goes before each text; "" for nothing.
        sizes: of the vectors, each by a Dense head of its own, before they are cut.
        normalize: whether vectors have unit length.
        max_length: tokens of a text, special ones and prefix included.
        on_long: what happens to longer texts.
        budget: padded tokens that go through the model at once.
        by_size: whether ``encode`` gives a dictionary from size to vectors, which it does where
            ``dims`` were asked for; otherwise there is one size, and it gives its vectors.
        truncate_dim: how many numbers of a vector are kept, the first ones; None for all.
    """

    prefix: str
    sizes: tuple[int, ...]
    normalize: bool
    max_length: int
    on_long: OnLong
    budget: int
    by_size: bool = False
    truncate_dim: int | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in the vectors, once cut."""
        return self.sizes if self.truncate_dim is None else (self.truncate_dim,)


class EncodeOptions(TypedDict, total=False):
    """The options that ``Encoder.settings`` takes besides ``dims``; it says what each means."""

    prompt_name: str | None
    prompt: str | None
    instruction: str | None
    dim: int | None
    truncate_dim: int | None
    normalize: bool
    max_length: int | None
    on_long: OnLong
    max_batch_tokens: int | None


class AllOptions(EncodeOptions, total=False):
    """With ``dims``, on which the type of what is returned depends."""

    dims: Sequence[int] | None


def names_a_prompt(options: EncodeOptions) -> bool:
    """Whether the caller chose a prompt in one of the three ways."""
    return any(options.get(key) is not None for key in ("prompt_name", "prompt", "instruction"))


def listed(texts: str | Iterable[str]) -> list[str]:
    """The texts as a list, of one where they are one string.

    Raises:
        InputError: they are no iterable of strings.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, bytearray)):
        raise InputError("texts are bytes", remedy="decode them, for example texts.decode()")
    try:
        return list(texts)
    except TypeError:
        raise InputError(
            f"texts are a {type(texts).__name__}", remedy="a string or a list of strings"
        ) from None


def one_or_several(
    dim: int | None, dims: Sequence[int] | None, checkpoint: Checkpoint
) -> tuple[int, ...]:
    """The sizes that ``dim`` or ``dims`` ask for, among those a model has.

    Raises:
        InputError: both are given, or one that the model has not.
    """
    if dim is not None and dims is not None:
        raise InputError("give dim or dims, not both")
    if dims is not None and (isinstance(dims, (int, str)) or not list(dims)):
        raise InputError(f"dims is {dims!r}", remedy="a list of sizes, such as [256, 1024]")
    default, known = checkpoint.default_dim, checkpoint.dims
    sizes = list(dims) if dims is not None else [default if dim is None else dim]
    for size in sizes:
        if size not in known or isinstance(size, float):
            fault = f"this model has no vectors of {size} dimensions"
            if size in checkpoint.absent_dims:
                fault += ": its card names them, but its repository has no weights for them"
            raise InputError(fault, remedy=f"one of {', '.join(map(str, known))}")
    return tuple(int(size) for size in sizes)


def prefix_size(
    truncate_dim: SupportsIndex | None, sizes: Sequence[int], by_size: bool
) -> int | None:
    """How many numbers ``truncate_dim`` leaves of a vector; None for all.

    Raises:
        InputError: it is no whole number from 1 to the vector's size, or ``by_size`` there are
            vectors of several sizes.
    """
    if truncate_dim is None:
        return None
    if by_size:
        raise InputError("truncate_dim cuts vectors of one size", remedy="give dim, not dims")
    return whole("truncate_dim", truncate_dim, 1, sizes[0])


def whole(name: str, value: SupportsIndex, least: int, most: int) -> int:
    """The value as an int.

    Raises:
        InputError: it is no whole number from least to most.
    """
    fault = InputError(f"{name} {value!r} is no whole number from {least} to {most}")
    try:
        number = operator.index(value)
    except TypeError:
        raise fault from None
    if not least <= number <= most:
        raise fault
    return number


def one_of_on_long(value: OnLong) -> OnLong:
    """The value, if it is one of ``on_long``.

    Raises:
        InputError: it is not.
    """
    if value not in get_args(OnLong):
        raise InputError(f"on_long {value!r} is unknown", remedy=" or ".join(get_args(OnLong)))
    return value
