"""``mlx-stella verify``: does this installation reproduce the published numbers?"""

import sys

from mlx_stella.cli import options


def verify(model: options.ModelArgument, dtype: options.Dtype = None) -> None:
    """Run a model's published examples and compare; exit status 1 if any differs too much."""
    from mlx_stella import hub
    from mlx_stella.encoder import load
    from mlx_stella.errors import InputError
    from mlx_stella.published import EXAMPLES, TOLERANCES, examples

    entry = hub.resolve(model).entry
    published = examples(entry.alias) if entry else []
    if not published:
        known = ", ".join(dict.fromkeys(example.alias for example in EXAMPLES))
        raise InputError(f"{model}: no published numbers are known for it; known: {known}")
    encoder = load(model, dtype=dtype)
    passed = True
    for example in published:
        tolerance = TOLERANCES[encoder.dtype] + example.uncertainty
        print(f"{example.alias} in {encoder.dtype}: {example.title} (tolerance {tolerance:.2g})")
        print("   expected         got  difference")
        for expected, got in zip(
            _flat(example.expected), _flat(example.compute(encoder)), strict=True
        ):
            good = abs(got - expected) <= tolerance
            passed &= good
            verdict = "pass" if good else "FAIL"
            print(f"{expected:11.6f} {got:11.6f} {got - expected:11.1e}  {verdict}")
    print("all pass" if passed else "FAILED", file=sys.stderr)
    if not passed:
        sys.exit(1)


def _flat(values) -> list[float]:
    import numpy as np

    return np.asarray(values, np.float64).ravel().tolist()
