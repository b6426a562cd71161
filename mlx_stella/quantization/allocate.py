"""Bits for each matrix under a budget for all, where what each costs in quality is known."""

from collections.abc import Mapping
from dataclasses import dataclass

WIDTHS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Choice:
    """A matrix at each width: bits a number -> its size, and -> what it loses, in any one unit."""

    sizes: Mapping[int, int]
    losses: Mapping[int, float]


def smallest(choices: Mapping[str, Choice]) -> int:
    """The least size of all together."""
    return sum(min(choice.sizes.values()) for choice in choices.values())


def allocate(choices: Mapping[str, Choice], budget: int) -> dict[str, int]:
    """The width of each matrix, so that losses add up to little and sizes to at most the budget.

    Greedy: all begin at their smallest; again and again that matrix is widened, to that width,
    which gains the most per size and still fits. On convex losses, which they are but for noise,
    this misses the best by less than what one more widening would gain.
    """
    widths = {name: min(choice.sizes) for name, choice in choices.items()}
    left = budget - smallest(choices)
    while True:
        best: tuple[float, str, int] | None = None
        for name, choice in choices.items():
            now = widths[name]
            for width, size in choice.sizes.items():
                more, gain = size - choice.sizes[now], choice.losses[now] - choice.losses[width]
                if 0 < more <= left and gain > 0 and (best is None or gain / more > best[0]):
                    best = (gain / more, name, width)
        if best is None:
            return widths
        _, name, width = best
        left -= choices[name].sizes[width] - choices[name].sizes[widths[name]]
        widths[name] = width
