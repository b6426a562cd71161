"""The headings of Markdown, as markdown-it-py reads it."""

import itertools
import re

_FRONT_MATTER = re.compile(r"---[ \t\r]*\n(?=\S).*?^---[ \t\r]*$\n?", re.MULTILINE | re.DOTALL)


def markdown_headings(text: str) -> list[tuple[int, str]]:
    """Position of the line and words of each heading, in order; "A > B" for B below A.

    Headings in quotes and lists are theirs alone; a paragraph of more than one line above dashes is
    hardly meant as a title.
    """
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(text)
    position = front.end() if front else 0
    starts = [position]
    starts += [line.end() for line in re.compile(r"\r\n?|\n").finditer(text, position)]
    tokens = MarkdownIt("commonmark").disable(["inline", "text_join"]).parse(text[position:])
    found: list[tuple[int, str]] = []
    levels: list[tuple[int, str]] = []
    for heading, words in itertools.pairwise(tokens):
        if heading.type != "heading_open" or heading.level or not heading.map:
            continue
        if words.content and "\n" not in words.content:
            level = int(heading.tag[1:])
            levels = [(depth, above) for depth, above in levels if depth < level]
            levels.append((level, words.content))
            found.append((starts[heading.map[0]], " > ".join(title for _, title in levels)))
    return found
