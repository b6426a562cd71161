"""The file whose rows become vectors: what it is, and its rows by number."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mlx_stella.errors import InputError
from mlx_stella.files.tables import Fault, TableRow, read_entries

ENDINGS = (".parquet", ".jsonl", ".csv", ".txt")


class InputFile:
    """A file of rows, which must not change while it is read.

    Attributes:
        path: where it is; field: the column of the texts, "" for a .txt file.
        size_bytes: of the file; blake2b: of its bytes, 32 hexadecimal digits.

    Raises:
        InputError: there is no such file, or it is not one of rows.
    """

    def __init__(self, path: Path, field: str | None):
        if path.suffix.lower() not in ENDINGS:
            raise InputError(f"not {', '.join(ENDINGS)}", where=path, remedy="rename or convert it")
        is_lines = path.suffix.lower() == ".txt"
        if is_lines and field is not None:
            raise InputError("a .txt file has no fields", where=path, remedy="drop --field")
        self.path = path
        self.field = "" if is_lines else "text" if field is None else field
        try:
            self._state = self._look()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        except OSError as error:
            raise self._unreadable(error) from None
        self.size_bytes = self._state[0]
        self.blake2b = digest.hexdigest()

    def count(self) -> int:
        """The number of rows.

        Raises:
            InputError: it cannot be read, or not one of its rows has a text.
        """
        rows = 0
        good: list[TableRow] = []
        faults: list[Fault] = []
        for entry in self._entries(lambda number: not good):
            rows += 1
            if isinstance(entry, TableRow):
                good.append(entry)
            elif entry is not None and not faults:
                faults.append(entry)
        if faults and not good:
            raise InputError(
                f"none of its rows, {rows} in all, has a text; of the first: {faults[0].fault}",
                where=self.path,
                remedy=faults[0].remedy,
            )
        return rows

    def rows(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, TableRow | Fault]]:
        """The rows that are wanted, each with its number, counted from 0.

        Raises:
            InputError: the file cannot be read, or has changed.
        """
        for number, entry in enumerate(self._entries(wanted)):
            if entry is not None:
                yield number, entry

    def check_unchanged(self) -> None:
        """Raises InputError if it is not the file that was opened any more."""
        try:
            is_same = self._look() == self._state
        except OSError as error:
            raise self._unreadable(error) from None
        if not is_same:
            raise InputError(
                "changed while it was read", where=self.path, remedy="embed it into another folder"
            )

    def _entries(self, wanted: Callable[[int], bool]) -> Iterator[TableRow | Fault | None]:
        try:
            yield from read_entries(self.path, self.field, wanted, ending=self.path.suffix)
        except OSError as error:
            raise self._unreadable(error) from None
        except InputError as error:
            raise error.within(self.path) from None

    def _look(self) -> tuple[int, int, int]:
        state = os.stat(self.path)
        if not stat.S_ISREG(state.st_mode):
            raise InputError(
                "no file", where=self.path, remedy=f"name one, of {', '.join(ENDINGS)}"
            )
        return state.st_size, state.st_mtime_ns, state.st_ino

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(error.strerror or error, where=self.path, remedy="check the path")
