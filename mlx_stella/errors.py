"""The errors a caller can meet, and the one warning.

    StellaError
    ├── ModelNotFoundError      an alias, Hub id or directory that leads to no checkpoint
    │   └── HubUnreachableError not in the cache, and the network gives no answer
    ├── CheckpointError         a checkpoint that was found but cannot be used
    │   ├── ConfigError         a JSON file: missing, malformed, or a value not implemented
    │   └── WeightsError        tensors: missing, extra, of the wrong shape, corrupt, not finite
    ├── InputError              texts or arguments that cannot be embedded
    │   ├── TextTooLongError    a text beyond the limit, with ``on_long="error"``
    │   └── MemoryLimitError    a text, or the weights, beyond the memory limit
    ├── VectorError             the model returned a vector that is not finite, or is zero
    ├── OutputError             a file that could not be written; nothing of it is left behind
    ├── StoreError              an index or a folder of parts: missing, damaged, being written,
    │                           or of another model
    └── MissingExtraError       a package that only some verbs need is not installed

    StellaWarning               something was decided that the caller may want to know

Every message is for a stranger: it names the file or row, the fault and the remedy. They are parts
of the error, and made into a text here only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class StellaError(Exception):
    """Base of all errors raised on purpose by this package.

    Attributes:
        fault: what is wrong.
        where: the file, address or argument it is wrong with; None where the fault says it.
        row: the number of the text it is wrong with, counted from 0; None if it is no text's.
        remedy: what to do; None where nothing is known.
    """

    def __init__(
        self,
        fault: object,
        *,
        where: object = None,
        row: int | None = None,
        remedy: str | None = None,
    ):
        super().__init__(fault)
        self.fault = str(fault)
        self.where = None if where is None else str(where)
        self.row = row
        self.remedy = remedy

    @property
    def reason(self) -> str:
        """Fault and remedy, for whoever knows where."""
        return self.fault if self.remedy is None else f"{self.fault}; remedy: {self.remedy}"

    def __str__(self) -> str:
        text = None if self.row is None else f"text {self.row}"
        return ": ".join(part for part in (self.where, text, self.reason) if part is not None)

    def within(self, where: object) -> Self:
        """The same error, told by who knows what the place lies in, such as a line in a file."""
        inner = where if self.where is None else f"{where}: {self.where}"
        return type(self)(self.fault, where=inner, row=self.row, remedy=self.remedy)


class ModelNotFoundError(StellaError):
    """The name given leads to no checkpoint, here or on the Hub."""


class HubUnreachableError(ModelNotFoundError):
    """The model is not in the cache and the network gives no answer."""


class CheckpointError(StellaError):
    """A checkpoint was found but cannot be used."""


class ConfigError(CheckpointError):
    """A JSON file of the checkpoint is missing, malformed, or asks for what is not implemented."""


class WeightsError(CheckpointError):
    """Tensors are missing, extra, of the wrong shape, unreadable or not finite."""


class InputError(StellaError):
    """Texts or arguments that cannot be embedded."""


class TextTooLongError(InputError):
    """A text has more tokens than allowed and ``on_long="error"`` was asked for."""


class MemoryLimitError(InputError):
    """A text, or the weights, need more memory than the limit allows."""


class VectorError(StellaError):
    """The model returned a vector that is not finite, or is zero."""


class OutputError(StellaError):
    """A file could not be written; nothing of it is left behind."""


class StoreError(StellaError):
    """An index or a folder of parts is missing, damaged, being written, or of another model."""


class MissingExtraError(StellaError):
    """A package that only some verbs need is not installed."""


class StellaWarning(UserWarning):
    """Something was decided that the caller may want to know; the CLI prints it in one line."""


@contextmanager
def kept_if_interrupted(note: str) -> Iterator[None]:
    """Ctrl-C amid long work carries a note of what stands and how to go on; the CLI tells it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(note)
        raise
