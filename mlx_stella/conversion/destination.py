"""A folder that appears whole or not at all, and takes the place of nothing but a conversion.

It is written beside its place under a hidden name, with a record in it that says so and that no
loader passes; the last steps are a rename and the removal of that record. So at whatever moment a
conversion is killed, nothing that loads is left of it, and the next one clears it away.

Only what a conversion wrote is ever removed: what a killed one left is known by its record, not by
its name, and a finished one says in conversion.json which files are its own.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mlx_stella.checkpoint.hub import UNFINISHED
from mlx_stella.config import read_object
from mlx_stella.errors import ConfigError, InputError, OutputError
from mlx_stella.files import atomic, lock
from mlx_stella.files.output import check_parent

PROOF, CARD = "conversion.json", "README.md"
_REPLACED = ".replaced"
"""In the new folder: the earlier conversion, until the new one is in place."""


def check(output: Path, source: Path, overwrite: bool) -> None:
    """Refuse a folder that could not be written later, before any work is done.

    Raises:
        InputError: it exists, lies in no folder, has to do with the source, and so on.
    """
    if output.is_symlink():
        raise InputError("is a link", where=output, remedy="name the folder it points to")
    if _lies_in(source, output):
        raise InputError("holds the source itself", where=output, remedy="another name")
    if _lies_in(output, source):
        raise InputError("lies in the source", where=output, remedy="another place")
    check_parent(output)
    if not output.exists():
        return
    if not overwrite and _token(output) is None:
        raise InputError("exists", where=output, remedy="another name, or --overwrite")
    _refuse_others(output)


def check_space(output: Path, needed_bytes: int) -> None:
    """Raises OutputError if the disk has less room than that."""
    free = shutil.disk_usage(output.parent).free
    if free < needed_bytes:
        raise OutputError(
            f"needs {needed_bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=output,
            remedy="free some space or choose another place",
        )


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``output`` when all went well, and else vanishes.

    Raises:
        InputError: another process writes the same output, or something else is in the way.
        OutputError: the disk is full, say; then nothing is left behind.
    """
    output = Path(os.path.abspath(output))
    folder = output.with_name(f".{output.name}.unfinished")
    _refuse_stranger(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.writing(str(folder)))
        except lock.HeldError:
            raise InputError(
                "is being written by another process", where=output, remedy="wait until it is done"
            ) from None
        token = secrets.token_hex(16)
        try:
            _refuse_stranger(folder)
            _clear(folder, output)
            record = {"conversion": output.name, "token": token}
            (folder / UNFINISHED).write_text(json.dumps(record) + "\n")
            yield folder
            _put_in_place(folder, output)
        except BaseException as error:
            if _token(folder) == token:  # it is not another process's by now
                _clear(folder, output)
                (folder / lock.NAME).unlink()
                folder.rmdir()
            if isinstance(error, OSError):
                raise atomic.unwritable(error, output) from None
            raise


def files(folder: Path) -> list[str]:
    """What was written into the folder so far, for its conversion.json."""
    own = {UNFINISHED, lock.NAME}
    return sorted(name for name in _entries(folder) - own if not (folder / name).is_dir())


def _put_in_place(folder: Path, output: Path) -> None:
    replaced = output / _REPLACED
    if output.exists():
        _refuse_others(output)  # something may have come since
        output.rename(folder / _REPLACED)
    folder.rename(output)
    if replaced.exists():
        _remove(replaced)
    (output / lock.NAME).unlink()
    (output / UNFINISHED).unlink()


def _clear(folder: Path, output: Path) -> None:
    """Remove all but the lock; what was to be replaced gets its place again."""
    replaced = folder / _REPLACED
    if replaced.exists() and output.exists():
        _remove(replaced)
    elif replaced.exists():
        replaced.rename(output)
    for entry in folder.iterdir():
        if entry.name in (lock.NAME, _REPLACED):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove(folder: Path) -> None:
    """Remove a conversion; whatever else lies there stays, and the folder with it."""
    found = _entries(folder) & _written(folder)
    with suppress(OSError):
        for name in sorted(found, key=lambda name: (name == PROOF, -name.count("/"))):
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        folder.rmdir()


def _refuse_stranger(folder: Path) -> None:
    """Raises InputError if something has the hidden name that no conversion left."""
    if not os.path.lexists(folder):
        return
    is_folder = folder.is_dir() and not folder.is_symlink()
    if is_folder and _token(folder) is not None:
        return
    marker = folder / UNFINISHED  # it is empty if the process was killed before it wrote there
    is_empty = not marker.exists() or marker.stat().st_size == 0
    if not is_folder or not is_empty or _entries(folder) - {lock.NAME, UNFINISHED}:
        raise InputError(
            "was not left by a conversion", where=folder, remedy="move it away, or another --output"
        )


def _refuse_others(output: Path) -> None:
    """Raises InputError if a folder holds anything but a conversion."""
    if not (output / PROOF).exists():
        raise InputError(
            f"holds no conversion ({PROOF}) that could be replaced",
            where=output,
            remedy="another name",
        )
    if others := sorted(_entries(output) - _written(output)):
        more = f" and {len(others) - 1} more," if len(others) > 1 else ""
        raise InputError(
            f"holds {others[0]},{more} which {PROOF} does not list as written by the conversion",
            where=output,
            remedy="move it away, or another name",
        )


def _written(folder: Path) -> set[str]:
    """What a conversion wrote into a folder, as its record says; folders included."""
    try:
        listed = read_object(folder / PROOF).get("files")
    except ConfigError:
        listed = None
    names = set(map(str, listed)) if isinstance(listed, list) else set()
    if _token(folder) is not None:  # killed before its last step
        names |= {UNFINISHED, lock.NAME, _REPLACED}
        names |= {f"{_REPLACED}/{name}" for name in _written(folder / _REPLACED)}
    return names | {parent.as_posix() for name in names for parent in Path(name).parents}


def _entries(folder: Path) -> set[str]:
    """All that lies in a folder, at any depth; links are not followed."""
    return {
        (Path(root) / name).relative_to(folder).as_posix()
        for root, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def _token(folder: Path) -> str | None:
    """From the record of a conversion that is under way or was killed."""
    try:
        return str(read_object(folder / UNFINISHED)["token"])
    except (ConfigError, KeyError):
        return None


def _lies_in(inner: Path, outer: Path) -> bool:
    """Also where names differ only in case, and the disk does not mind."""
    inner = inner.resolve()
    around = [path for path in (inner, *inner.parents) if path.exists()]
    return outer.exists() and any(path.samefile(outer) for path in around)
