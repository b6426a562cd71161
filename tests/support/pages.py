"""README and docs/ as tests see them: their commands, their Python, their links."""

import re
import shlex
from dataclasses import dataclass

from support import ROOT

_DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *_DOCS)


@dataclass(frozen=True)
class Command:
    """A command line of a page, without its comment.

    Attributes:
        words: of the program at its end, after pipes and launchers; words[0] is its name.
        stdin: the file that is piped to it, or None.
    """

    page: str
    line: str
    words: tuple[str, ...]
    stdin: str | None = None


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[Command]:
    """The command lines of a page's ``sh`` blocks, but for variables that are set."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        stdin = words[1] if words[:1] == ["cat"] else None
        for launcher in ("|", "--"):
            if launcher in words and words[0] != "mlx-stella":  # which has a -- of its own
                words = words[words.index(launcher) + 1 :]
        words = words[: words.index(">")] if ">" in words else words
        if words and words[0] != "export":
            found.append(Command(page, line, tuple(words), stdin))
    return found


def links(page: str) -> list[str]:
    """What links and pictures of a page lead to, without what is on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page))
    return [target for target in targets if "://" not in target]


def anchors(page: str) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
