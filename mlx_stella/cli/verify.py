"""``mlx-stella verify``: does this installation reproduce the published numbers?"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_stella.cli import options
from mlx_stella.cli.terminal import say, tell

if TYPE_CHECKING:
    from mlx_stella.encoding.encoder import Encoder
    from mlx_stella.evaluation.published import Similarities, Values


def verify(model: options.ModelArgument = None, dtype: options.Dtype = None) -> None:
    """Run a model's published examples and compare; exit status 1 if any differs too much."""
    from mlx_stella.checkpoint import hub
    from mlx_stella.errors import InputError
    from mlx_stella.evaluation.published import EXAMPLES, TOLERANCES, examples
    from mlx_stella.loading import load

    source = hub.resolve(options.required(model))
    published = examples(source.entry.alias) if source.entry else []
    if not published:
        known = ", ".join(dict.fromkeys(example.alias for example in EXAMPLES))
        raise InputError(
            "no published numbers are known for it", where=model, remedy=f"one of {known}"
        )
    encoder = load(source.directory, dtype=dtype)
    passed = True
    for example in published:
        tolerance = TOLERANCES[encoder.dtype] + example.uncertainty
        say(f"{example.alias} in {encoder.dtype}: {example.title} (tolerance {tolerance:.2g})")
        say("                      expected         got  difference")
        for label, expected, got in _compare(example, encoder):
            good = abs(got - expected) <= tolerance
            passed &= good
            verdict = "pass" if good else "FAIL"
            say(f"  {label:16} {expected:11.6f} {got:11.6f} {got - expected:11.1e}  {verdict}")
    tell("all pass" if passed else "FAILED")
    if not passed:
        sys.exit(1)


def _compare(
    example: "Similarities | Values", encoder: "Encoder"
) -> Iterator[tuple[str, float, float]]:
    """Label, expected and computed value of each number of an example."""
    from mlx_stella.evaluation.published import Values

    computed = example.compute(encoder).tolist()
    if isinstance(example, Values):
        for index, expected, got in zip(example.indices, example.expected, computed, strict=True):
            yield f"entry {index}", expected, got
        return
    for i, (expected_row, row) in enumerate(zip(example.expected, computed, strict=True)):
        for j, (expected, got) in enumerate(zip(expected_row, row, strict=True)):
            yield f"query {i + 1}, text {j + 1}", expected, got
