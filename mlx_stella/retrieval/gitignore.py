"""Which paths git leaves out: patterns of .gitignore as git reads them.

A pattern becomes a regex that never goes back behind a star once the next piece is found: its time
grows with the path, however many stars a stranger has written.
"""

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class _Pattern:
    """A line of a .gitignore; ``ignores`` is false where it begins with ``!``."""

    regex: re.Pattern[str]
    ignores: bool
    folders_only: bool

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether it means this path; that it means a folder above it does not count, for the walk
        has settled that: ``!folder/`` takes back the folder, but not all that is in it."""
        return is_folder >= self.folders_only and self.regex.fullmatch(path) is not None


_MOST_BYTES = 2**20
"""A longer .gitignore holds no patterns; git has such a limit, too."""

Ignores = tuple[str, list[_Pattern]]
"""A folder's path with a slash behind it, and the patterns of its .gitignore."""


def read_ignores(folder: str) -> Ignores:
    """The patterns of a folder's .gitignore; none where it has none that can be read."""
    path, lines = Path(folder, ".gitignore"), []
    try:
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            lines = path.read_text("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError:
        pass
    return folder.rstrip("/") + "/", [p for line in lines if (p := _parse_pattern(line))]


def _parse_pattern(line: str) -> _Pattern | None:
    """None for what is no pattern; git passes over it, too."""
    if not line.endswith("\\ "):
        line = line.rstrip()
    ignores, folders_only = not line.startswith("!"), line.endswith("/")
    line = line.removeprefix("!").rstrip("/")
    if not line or (ignores and line.startswith("#")):
        return None
    # A class may hold a slash; what is left of an open [ or of a last backslash is no pattern.
    parts: list[list[str]] = [[]]
    for found in _TOKEN.finditer(line):
        token = found[0]
        if token in ("[", "\\"):
            return None
        if token in ("/", "\\/"):
            parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) > 1 and not parts[0]:
        parts = parts[1:]
    return _Pattern(re.compile(_path_regex(parts, "/" in line)), ignores, folders_only)


_TOKEN = re.compile(r"\\.|\[[!^]?+\]?+(?:\\.|[^]\\])*+\]|\*+|.", re.DOTALL)
_MEMBER = re.compile(r"\\?(.)(?:-\\?(.))?", re.DOTALL)


def _path_regex(parts: list[list[str]], is_anchored: bool) -> str:
    """A regex of a whole path; where ``**`` stands for folders, the first that fit are taken."""
    groups: list[list[str]] = [[]] if is_anchored else [[], []]
    for number, part in enumerate(parts):
        if len(part) == 1 and part[0].startswith("**"):
            groups.append([])
            if number < len(parts) - 1:
                continue
        groups[-1].append(_part_regex(part))
    first, *between = ["".join(f"{part}/" for part in group) for group in groups[:-1]] or [""]
    folders = r"(?:[^/]*+/)*?"
    middle = "".join(f"(?>{folders}{group})" for group in between)
    return first + middle + (folders if len(groups) > 1 else "") + "/".join(groups[-1])


def _part_regex(tokens: list[str]) -> str:
    """A regex of one name in a path."""
    pieces = [""]
    for token in tokens:
        if token[0] == "*":
            pieces.append("")
        elif token == "?":
            pieces[-1] += "[^/]"
        elif len(token) > 1 and token[0] == "[":
            pieces[-1] += _class_regex(token[1:-1])
        else:
            pieces[-1] += re.escape(token[-1])
    first, *between = pieces[:-1] or [""]
    stars = "".join(f"(?>[^/]*?{piece})" for piece in between)
    return first + stars + ("[^/]*" if len(pieces) > 1 else "") + pieces[-1]


def _class_regex(members: str) -> str:
    """A regex of ``[...]``; of a range from a later to an earlier character git takes the first."""
    is_negated = members[0] in "!^"
    found = ""
    for first, last in _MEMBER.findall(members[is_negated:]):
        found += re.escape(first)
        if first <= last:
            found += f"-{re.escape(last)}"
    return f"[^/{found}]" if is_negated else f"(?!/)[{found}]"


def ignores_above(folder: Path) -> list[Ignores]:
    """Those of the same git repository, but for patterns that leave out what was asked for."""
    above = [folder, *folder.parents]
    repository = next((i for i, path in enumerate(above) if os.path.lexists(path / ".git")), 0)
    ignores: list[Ignores] = []
    for parent, path in pairwise(map(str, reversed(above[: repository + 1]))):
        ignores.append(read_ignores(parent))
        if is_ignored(path, True, ignores):
            ignores = [
                (where, [p for p in patterns if not p.matches(path.removeprefix(where), True)])
                for where, patterns in ignores
            ]
    return ignores


def is_ignored(path: str, is_folder: bool, ignores: list[Ignores]) -> bool:
    """Whether git leaves out a path, but not the folder it lies in.

    The last pattern that means the path decides, of the .gitignore that is nearest to it.
    """
    for folder, patterns in reversed(ignores):
        name = path.removeprefix(folder)
        for pattern in reversed(patterns):
            if pattern.matches(name, is_folder):
                return pattern.ignores
    return False
