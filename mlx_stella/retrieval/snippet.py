"""The piece of a passage that answers a question, for people. Needs nothing but Python."""

import re


def snippet(text: str, query: str, width: int) -> str:
    """The piece of a text, at most ``width`` characters in one line, that holds most of a query."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    wanted = {word.lower() for word in re.findall(r"\w{3,}", query)}
    found = [m.start() for m in re.finditer(r"\w{3,}", text) if m.group().lower() in wanted]
    best = max(found, key=lambda s: sum(s <= other < s + width - 20 for other in found), default=0)
    start = min(max(0, best - 10), len(text) - width + 2)
    if start:
        start = text.find(" ", start - 1) + 1 if " " in text[start : start + 20] else start
    piece = text[start : start + width - 2].strip()
    before, after = "…" * bool(start), "…" * (start + width - 2 < len(text))
    return before + piece + after
