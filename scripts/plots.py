"""Draw the plots of docs/ from figures that were measured.

    $ python scripts/plots.py
    docs/pictures/bits.svg: 14 points
    docs/pictures/speed.svg: 4 points

Bits against cosine come from the tables of docs/converting.md; tokens a second against length from
docs/pictures/speed.json, which is what ``mlx-stella bench all-minilm-l6-v2 --json`` printed, and a
``note`` of how it was measured, where there is something to say. The pictures are SVG with both a
light and a dark dress, which the reader's own system chooses between, on a ground of their own, so
that they are legible on any page.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = DOCS / "pictures"

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Arial, sans-serif; fill: #1f2328 }
  .ground { fill: #ffffff } .grid { stroke: #d1d9e0 } .soft { fill: #59636e; font-size: 11px }
  .line { fill: none; stroke-width: 1.5 }
  .one { fill: #0a5fb4 } .two { fill: #b35900 } .three { fill: #6b40b8 }
  .line.one { fill: none; stroke: #0a5fb4 } .line.three { fill: none; stroke: #6b40b8 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .ground { fill: #0d1117 } .grid { stroke: #3d444d } .soft { fill: #9198a1 }
    .one { fill: #58a6ff } .two { fill: #f0883e } .three { fill: #bc8cff }
    .line.one { stroke: #58a6ff } .line.three { stroke: #bc8cff }
  }
"""
_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 56, 78


Box = tuple[float, float, float, float]
"""Left, top, right and bottom of what a label must not cover."""


@dataclass(frozen=True)
class Axis:
    """One direction of a plot.

    Attributes:
        title: what it measures.
        ticks: values that are named.
        place: a value to its place between 0 and 1.
        name: a tick to the words at it.
    """

    title: str
    ticks: Sequence[float]
    place: Callable[[float], float]
    name: Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Points of one kind, with names; ``joined`` by a line in the order given."""

    title: str
    points: Sequence[tuple[float, float, str]]
    joined: bool = False


def draw(title: str, note: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """A plot as SVG: points with their names, a legend where there are several series."""
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    floor = _TOP + up
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{title}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        _text(_LEFT, 28, title, 'font-weight="600"'),
        _text(_WIDTH - _RIGHT, _HEIGHT - 12, note, 'class="soft" text-anchor="end"'),
        _text(_LEFT + across / 2, _HEIGHT - 38, x.title, 'text-anchor="middle"'),
        f'<g transform="translate(20 {_TOP + up / 2}) rotate(-90)">',
        _text(0, 0, y.title, 'text-anchor="middle"') + "</g>",
    ]
    for tick in x.ticks:
        a = _LEFT + across * x.place(tick)
        parts.append(f'<path class="grid" d="M{a:.1f} {_TOP}V{floor}"/>')
        parts.append(_text(a, floor + 18, x.name(tick), 'class="soft" text-anchor="middle"'))
    for tick in y.ticks:
        b = floor - up * y.place(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {b:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, b + 4, y.name(tick), 'class="soft" text-anchor="end"'))
    beside = _LEFT + 150.0
    drawn = [
        [(_LEFT + across * x.place(a), floor - up * y.place(b), name) for a, b, name in one.points]
        for one in series
    ]
    taken = [(a - 5, b - 5, a + 5, b + 5) for places in drawn for a, b, _ in places]
    for kind, one, places in zip(("one", "two", "three"), series, drawn, strict=False):
        if one.joined:
            line = "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in places)
            parts.append(f'<path class="line {kind}" d="M{line}"/>')
        for a, b, name in places:
            parts.append(f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="4"/>')
            parts.append(_label(a, b, name, taken) if name else "")
        if len(series) > 1:
            parts.append(f'<circle class="{kind}" cx="{beside}" cy="24" r="4"/>')
            parts.append(_text(beside + 9, 28, one.title, ""))
            beside += 40 + 6.5 * len(one.title)
    return "\n".join([part for part in parts if part] + ["</svg>\n"])


def _label(x: float, y: float, name: str, taken: list[Box]) -> str:
    """The name of a point, at the first of four places that is free."""
    width = 6.2 * len(name)
    places = [(7, 14, "start"), (-7, -6, "end"), (7, -6, "start"), (-7, 14, "end")]
    for right, down, anchor in places:
        left = x + right - (width if anchor == "end" else 0)
        box = (left, y + down - 9, left + width, y + down + 2)
        if not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in taken
        ):
            break
    taken.append(box)
    return _text(x + right, y + down, name, f'class="soft" text-anchor="{anchor}"')


def _text(x: float, y: float, words: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{words}</text>'


def bits() -> tuple[str, int]:
    """Mean cosine to the float model against bits per weight: the tables of docs/converting.md."""
    page = (DOCS / "converting.md").read_text(encoding="utf-8")
    row = r" \| ([\d.]+) \| [\d.]+ MB \| ([\d.]+) \|"
    plain, mixed = [], []
    for command, width, cosine in re.findall(r"^\| `--([^`]+)`" + row, page, re.MULTILINE):
        if re.fullmatch(r"bits \d", command):
            plain.append((float(width), float(cosine), ""))
        elif not command.startswith("dtype"):
            mixed.append((float(width), float(cosine), command.split()[-1]))
    mixed = [(a, b, "groups of 32" if name == "32" else name) for a, b, name in mixed]
    calibrated = [
        (float(width), float(cosine), f"--target-bits {target}")
        for target, width, cosine in re.findall(r"^\| ([\d.]+)" + row, page, re.MULTILINE)
    ]
    x = Axis("bits per weight", range(2, 10), lambda width: (width - 2) / 7, str)
    # By the logarithm of what is missing to 1: 0.99 and 0.999 are as far apart as 0.9 and 0.99.
    bottom, top = math.log10(0.6), math.log10(0.00006)
    y = Axis(
        "mean cosine",
        (0.5, 0.9, 0.99, 0.999, 0.9999),
        lambda cosine: (bottom - math.log10(1 - cosine)) / (bottom - top),
        str,
    )
    series = [
        Series("--bits 2, 3, 4, 5, 6, 8", sorted(plain), joined=True),
        Series("other formats", sorted(mixed)),
        Series("--recipe auto, on other texts", sorted(calibrated), joined=True),
    ]
    note = "all-MiniLM-L6-v2 against its own float32; numbers and commands: docs/converting.md"
    return draw("What bits cost", note, x, y, series), sum(len(s.points) for s in series)


def speed() -> tuple[str, int]:
    """Tokens a second against tokens a text: docs/pictures/speed.json."""
    measured = json.loads((PICTURES / "speed.json").read_text(encoding="utf-8"))
    points = [
        (int(row["name"].split()[0]), row["tokens_per_second"]) for row in measured["measurements"]
    ]
    lengths = [length for length, _ in points]
    step = 10 ** math.floor(math.log10(max(speed for _, speed in points)))
    most = step * math.ceil(max(speed for _, speed in points) / step)
    step = step // 5 if most <= 2 * step else step
    low, high = math.log2(min(lengths)) - 0.5, math.log2(max(lengths)) + 0.5
    x = Axis("tokens a text", lengths, lambda n: (math.log2(n) - low) / (high - low), str)
    y = Axis("tokens a second", range(0, most + 1, step), lambda n: n / most, "{:,}".format)
    named = [(length, value, f"{value:,.0f}") for length, value in points]
    title = f"Speed by length: {measured['model']}, {measured['dtype']}"
    note = "; ".join(measured[key] for key in ("machine", "note") if key in measured)
    return draw(title, note, x, y, [Series("", named, joined=True)]), len(points)


if __name__ == "__main__":
    for name, plot in (("bits", bits), ("speed", speed)):
        picture, count = plot()
        (PICTURES / f"{name}.svg").write_text(picture, encoding="utf-8")
        print(f"docs/pictures/{name}.svg: {count} points")
