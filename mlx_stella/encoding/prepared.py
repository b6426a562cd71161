"""Texts made ready for a model, and refused where it could not take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.checkpoint.tokenization import Tokenizer
from mlx_stella.encoding.settings import Settings
from mlx_stella.errors import InputError, TextTooLongError


@dataclass(frozen=True)
class Prepared:
    """N texts as token ids. ``Encoder.prepare`` makes them, ``Encoder.run`` takes them.

    Attributes:
        ids: of each text, special tokens and prompt included, cut to the maximal length.
        untruncated_lengths: tokens that each text had before it was cut.
        masked: the leading tokens of each text, its prompt's, that are not pooled.
        first: the number of the first text, from which errors count.
    """

    ids: Sequence[Sequence[int]]
    untruncated_lengths: Sequence[int]
    masked: int
    first: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text, as the model reads it."""
        return [len(ids) for ids in self.ids]

    @property
    def cut(self) -> int:
        """Texts that were longer than the maximal length."""
        pairs = zip(self.lengths, self.untruncated_lengths, strict=True)
        return sum(length < before for length, before in pairs)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The texts of several, in order, to be run at once; made with the same settings, all.

        Raises:
            InputError: there are none, or their prompts differ in length.
        """
        if len({part.masked for part in parts}) != 1:
            raise InputError("not prepared with the same settings", remedy="run each alone")
        ids = [ids for part in parts for ids in part.ids]
        lengths = [length for part in parts for length in part.untruncated_lengths]
        return cls(ids, lengths, parts[0].masked)


def first_alike(ids: Sequence[Sequence[int]]) -> list[int]:
    """For each text the number of the first with the same token ids, and so the same vector."""
    seen: dict[tuple[int, ...], int] = {}
    return [seen.setdefault(tuple(row), number) for number, row in enumerate(ids)]


def prepare(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    settings: Settings,
    first: int = 0,
) -> Prepared:
    """Tokenize texts, the first of which has the number ``first``.

    Raises:
        TextTooLongError, InputError: a text is too long, is no valid string, or nothing of it
            is left to pool; the row is named.
    """
    masked = tokenizer.prompt_length(settings.prefix) if checkpoint.masks_prompt else 0
    limit = settings.max_length
    tokens = tokenizer.encode(texts, settings.prefix, limit, first)
    for row, text in enumerate(tokens, start=first):
        if settings.on_long == "error" and text.untruncated_length > limit:
            raise TextTooLongError(
                f"{text.untruncated_length} tokens exceed {limit}",
                row=row,
                remedy="raise the maximal length, shorten it, or let it be truncated",
            )
        if len(text.ids) <= masked:
            raise InputError(
                f"nothing of it fits behind the prompt of {masked} tokens",
                row=row,
                remedy="a larger max_length or a shorter prompt",
            )
    return Prepared(
        [text.ids for text in tokens], [text.untruncated_length for text in tokens], masked, first
    )
