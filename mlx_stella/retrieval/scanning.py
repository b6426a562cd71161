"""Which files belong to an index: walk folders, respect .gitignore, list what is left out.

A file is known by its root, the folder that was asked for, and its name, the path from there with
forward slashes. Names are text: nothing in them is ever expanded or run.
"""

import fnmatch
import json
import os
import re
import stat
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlx_stella.errors import InputError
from mlx_stella.retrieval.gitignore import ignores_above, is_ignored, read_ignores

ROW_ENDINGS = (".jsonl", ".csv", ".parquet")
"""Files of many texts, a text a row; they are streamed and may be of any size."""

MAX_FILE_BYTES = 32 * 2**20
"""A larger file is left out, unless it is one of rows."""

_BEIR_CORPUS = "corpus.jsonl"
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, order=True)
class Key:
    """What a file is called: its root, an absolute path, and its name below it."""

    root: str
    name: str


@dataclass(frozen=True)
class SourceFile:
    """A file to be indexed. ``is_beir``: the corpus of a folder in BEIR's layout."""

    key: Key
    path: Path
    is_beir: bool = False


@dataclass(frozen=True)
class Note:
    """Why a file is not in the index."""

    key: Key
    reason: str


@dataclass
class Scan:
    """What was found.

    Attributes:
        files: to be indexed, in order of root and name.
        skipped: left out on purpose: binary kinds, links, huge files, other indexes.
        failed: folders and files that cannot be read.
        scopes: what the scan has covered: roots, and names of files asked for one by one.
        globs: names looked at; an empty list means all.
        gone: as scopes, what was asked for and has been deleted.
    """

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    scopes: dict[str, set[str] | None] = field(default_factory=dict)
    globs: list[str] = field(default_factory=list)
    gone: dict[str, set[str] | None] = field(default_factory=dict)

    def covers(self, key: Key) -> bool:
        """Whether the scan would have met this file if it were still there."""
        names = self.gone.get(key.root, ())
        if names is None or key.name in names:
            return True
        roots = [root for root in self.scopes if is_below(key.root, root)]
        if not roots:
            return False
        root = max(roots, key=len)  # of a folder that was a root before, the one it lies in
        name = f"{key.root}/{key.name}"[len(root.rstrip("/")) + 1 :]
        if not _matches(name, self.globs):
            return False
        if any(n.key.root == root and is_below(name, n.key.name) for n in self.failed):
            return False  # it may be there, behind what cannot be read
        names = self.scopes[root]
        return names is None or (key.root == root and name in names)


class Patience:
    """How much of folders is looked at that an index names, not the user.

    Raises, by :meth:`spend`:
        InputError: it is over.
    """

    def __init__(self, entries: int = 2**20, seconds: float = 30.0):
        self._entries, self._end = entries, time.monotonic() + seconds

    def spend(self, entries: int) -> None:
        """Look at so many entries more."""
        self._entries -= entries
        if self._entries < 0 or time.monotonic() > self._end:
            raise InputError("more than can be looked at by the way", remedy="name it to `index`")


def scan(
    paths: Sequence[Path],
    globs: Sequence[str] = (),
    exclude: Path | None = None,
    patience: Patience | None = None,
) -> Scan:
    """Look for files.

    Args:
        paths: folders and files.
        globs: patterns such as ``*.md`` or ``docs/*``; a file is taken if its name or the last
            part of it matches one. ``*`` matches slashes, too, and ``**/`` also nothing.
        exclude: a folder that is passed over, such as the index itself.
        patience: what it may take; None for whatever it does.

    Raises:
        InputError: a path does not exist, or lies in another one; the patience is over.
    """
    found = Scan(globs=list(globs))
    for path in paths:
        try:
            real = as_spelled(path.resolve(strict=True))
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "a link that leads to itself"
            raise InputError(reason, where=path, remedy="name a file or folder") from None
        except ValueError:
            raise InputError("no name of a file", where=f"{path!r}", remedy="name one") from None
        if not real.is_dir():
            if patience:
                patience.spend(1)
            root, name = text_of(real.parent), text_of(real.name)
            names = found.scopes.setdefault(root, set())
            if names is not None:
                names.add(name)
                _take(found, Key(root, name), real)
            continue
        root = text_of(real)
        if found.scopes.get(root, ()) is None:
            continue  # named twice
        if root in found.scopes:
            raise InputError("a file in it is named, too", where=path, remedy="name one of them")
        found.scopes[root] = None
        _walk(found, root, real, as_spelled(exclude.resolve()) if exclude else None, patience)
    _refuse_nested(found)
    found.files.sort(key=lambda file: file.key)
    return found


def _refuse_nested(found: Scan) -> None:
    for root in found.scopes:
        for other in found.scopes:
            if root != other and found.scopes[other] is None and is_below(root, other):
                raise InputError(f"lies in {other}", where=root, remedy="name one of them")


def _walk(
    found: Scan, root: str, folder: Path, exclude: Path | None, patience: Patience | None
) -> None:
    """Files below a folder, in order, with the .gitignore of every folder on the way."""
    waiting = [(str(folder), ignores_above(folder))]  # no recursion: folders nest deeper than it
    while waiting:
        here, ignores = waiting.pop()
        prefix = (text_of(here).rstrip("/") + "/")[len(root) :].lstrip("/")
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            found.failed.append(Note(Key(root, prefix.rstrip("/")), error.strerror or str(error)))
            continue
        if patience:
            patience.spend(1 + len(entries))
        if made := _made_here(Path(here)):
            found.skipped.append(Note(Key(root, prefix.rstrip("/")), made))
            continue
        ignores = [*ignores, read_ignores(here)]
        is_beir = all(os.path.isfile(f"{here}/{name}") for name in (_BEIR_CORPUS, "queries.jsonl"))
        if is_beir:  # the questions are not to be found
            entries = [entry for entry in entries if entry.name == _BEIR_CORPUS]
        folders = []
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith(".") or is_ignored(entry.path, is_folder, ignores):
                continue
            name = prefix + text_of(entry.name)
            if is_folder and Path(entry.path) != exclude:
                folders.append((entry.path, ignores))
            elif not is_folder and _matches(name, found.globs):
                _take(found, Key(root, name), Path(entry.path), is_beir)
        waiting += reversed(folders)


def _made_here(folder: Path) -> str:
    """What this package made of a folder, whose files are not to be read; else ""."""
    if all(os.path.isdir(folder / name) for name in ("chunks.lance", "notes.lance")):
        return "an index"
    manifest = folder / "manifest.json"
    try:
        if any(folder.glob("part-*.parquet")) and manifest.is_file():
            keys = json.loads(manifest.read_bytes())
            if isinstance(keys, dict) and {"input_blake2b", "part_rows"} <= keys.keys():
                return "a folder of vectors"
    except (OSError, ValueError, RecursionError):
        pass  # somebody else's
    return ""


def _take(found: Scan, key: Key, path: Path, is_beir: bool = False) -> None:
    """Sort a file into those to be indexed and those left out."""
    try:
        if os.path.islink(path):
            target = path.resolve(strict=True)
            if not is_below(text_of(target), key.root):
                found.skipped.append(Note(key, "a link that leaves the folder"))
                return
            if target.is_dir():
                found.skipped.append(Note(key, "a link to a folder"))
                return
            below = target.relative_to(path_of(key.root))
            if any(part.startswith(".") for part in below.parts):
                found.skipped.append(Note(key, "a link to a hidden file"))
                return
        state = path.stat()
    except (OSError, RuntimeError) as error:
        if os.path.islink(path):
            found.skipped.append(Note(key, "a broken link"))
        else:
            found.failed.append(Note(key, getattr(error, "strerror", None) or str(error)))
        return
    if not stat.S_ISREG(state.st_mode):
        found.skipped.append(Note(key, "no regular file"))
    elif path.suffix.lower() not in ROW_ENDINGS and state.st_size > MAX_FILE_BYTES:
        size = f"{state.st_size / 2**20:.0f} MiB"
        found.skipped.append(Note(key, f"{size}, more than {MAX_FILE_BYTES // 2**20} MiB"))
    else:
        found.files.append(SourceFile(key, path, is_beir))


def _matches(name: str, globs: Sequence[str]) -> bool:
    if not globs:
        return True
    last = name.rsplit("/", 1)[-1]
    return any(_regex(glob).fullmatch(part) for glob in globs for part in (name, last))


_TOKEN = re.compile(r"(?P<folders>(?<![^/])(?:\*\*/)+)|(?P<star>\*+)|\[!?\]?[^]]*\]|.", re.DOTALL)
_SKIPS = {"star": ".*?", "folders": "(?:.*?/)??"}


@cache
def _regex(glob: str) -> re.Pattern[str]:
    """As fnmatch has it, but ``**/`` may stand for no folder at all.

    It never goes back behind a star once the next piece is found, so its time grows with the name,
    however many stars a stranger has written.
    """
    end = glob.rfind("]") + 1  # behind it no class ends: each [ is itself, and not looked at again
    groups: list[list[str]] = [[]]
    for token in _TOKEN.finditer(glob[:end] + glob[end:].replace("[", "[[]")):
        if token.lastgroup:
            groups.append([_SKIPS[token.lastgroup]])
        else:
            groups[-1].append(fnmatch.translate(token[0])[:-2])  # without the end of the text
    *first, last = map("".join, groups)
    return re.compile("".join(f"(?>{group})" for group in first) + last)


def as_spelled(path: Path) -> Path:
    """A path as its folders list it, where the file system takes other spellings for the same.

    macOS does, of case and of accents (NFC and NFD): without this a folder that is named in two
    ways would be two roots. Where it does not, as on Linux, each spelling is a file of its own.
    """
    spelled = Path(path.anchor)
    for name in path.parts[1:]:
        spelled /= _spelling(spelled, name)
    return spelled


def _spelling(folder: Path, name: str) -> str:
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    for other in (forms | {name.swapcase()}) - {name}:
        try:
            if not os.path.samefile(folder / other, folder / name):
                continue
            with os.scandir(folder) as entries:
                listed = [entry.name for entry in entries]
        except (OSError, ValueError):
            continue
        if name not in listed:
            return next((known for known in listed if _folded(known) == _folded(name)), name)
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it; "" is the root of all."""
    return not folder or path == folder or path.startswith(folder.rstrip("/") + "/")


def text_of(path: str | Path) -> str:
    """A path as valid Unicode, a text of its own for each: see :func:`path_of`.

    Bytes that are not UTF-8 become ``\\xff``, and so does a backslash that would look like one.
    """
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    text = _LOOKS_ESCAPED.sub(r"\\x5c", text)
    return _NOT_UTF8.sub(lambda byte: f"\\x{ord(byte.group()) - 0xDC00:02x}", text)


def path_of(text: str) -> Path:
    """The path, or a part of one, that a key's root or name stands for."""
    path = _ESCAPED.sub(lambda byte: bytes.fromhex(byte.group(1).decode()), text.encode())
    return Path(os.fsdecode(path))
