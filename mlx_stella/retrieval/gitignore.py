"""Which paths git leaves out: patterns of .gitignore as git reads them, parsed by pathspec."""

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


Ignores = tuple[str, list[_Pattern]]
"""A folder's path with a slash behind it, and the patterns of its .gitignore."""


def read_ignores(folder: str) -> Ignores:
    """The patterns of a folder's .gitignore; none where it has none that can be read."""
    path, lines = Path(folder, ".gitignore"), []
    try:
        if path.is_file():
            lines = path.read_text("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError:
        pass
    return folder.rstrip("/") + "/", [p for line in lines if (p := _parse_pattern(line))]


def _parse_pattern(line: str) -> _Pattern | None:
    """None for what is no pattern; git passes over it, too."""
    import pathspec

    if not line.endswith("\\ "):
        line = line.rstrip()
    folders_only = line.endswith("/")
    line = re.sub(r"/\*\*$", "/**/*", line.rstrip("/"))
    # pathspec makes of a last * what matches a part of a path; ?* is the same to git
    line = re.sub(r"(^!?|/)\*+$", r"\1?*", line)
    try:
        (parsed,) = pathspec.GitIgnoreSpec.from_lines([line]).patterns
    except ValueError:
        return None
    if parsed.regex is None or parsed.include is None:
        return None
    return _Pattern(parsed.regex, parsed.include, folders_only)


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
