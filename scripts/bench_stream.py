"""Whether a long stream stays as fast and as small as a short one.

    $ python scripts/bench_stream.py all-minilm-l6-v2 --texts corpus.jsonl --count 100000
    texts      tokens/s  by the short one's  MLX peak MB  resident peak MB
      1,000       5,916                1.03          134               348
    100,000       6,013                1.05          138               377
      1,000       5,250                0.92          134               377

Texts are 2 to 10 words in a row, drawn from the corpus with a fixed seed; the short stream is a
thousand of the long one's. It is embedded five times before and five times after the long one, and
compared by the median of all ten. On a Mac, resident memory may leave out a GPU's buffers.
"""

import argparse
import random
import time
from collections.abc import Sequence
from statistics import median

import mlx_stella  # before MLX: it looks for a fast BLAS

import mlx.core as mx  # isort: skip
from mlx_stella.cli.texts import read_records
from mlx_stella.machine.process_memory import peak_resident_bytes

SHORT = 1000  # texts
RUNS = 5  # of the short stream, on each side of the long one


def draw(corpus: Sequence[str], count: int) -> list[str]:
    """That many texts of 2 to 10 successive words of the corpus."""
    chance = random.Random(0)
    words = [word for text in corpus for word in text.split()]
    starts = (chance.randrange(len(words) - 10) for _ in range(count))
    return [" ".join(words[start : start + chance.randint(2, 10)]) for start in starts]


def tokens_per_second(model: mlx_stella.Encoder, texts: Sequence[str]) -> float:
    tokens = 0

    def count(progress) -> None:
        nonlocal tokens
        tokens = progress.tokens

    start = time.perf_counter()
    for _ in model.encode_stream(texts, progress=count):
        pass
    return tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", required=True, help=".txt, or .jsonl with the field text")
    parser.add_argument("--count", type=int, default=100_000, help="texts of the long stream")
    arguments = parser.parse_args()

    model = mlx_stella.load(arguments.model)
    long = draw([r.text for r in read_records(None, arguments.texts, None)], arguments.count)
    short = random.Random(1).sample(long, SHORT)
    model.encode(short)

    results = []
    for texts, runs in ((short, RUNS), (long, 1), (short, RUNS)):
        mx.reset_peak_memory()
        speeds = [tokens_per_second(model, texts) for _ in range(runs)]
        results.append((len(texts), speeds, mx.get_peak_memory(), peak_resident_bytes()))
    usual = median(results[0][1] + results[2][1])
    print("texts      tokens/s  by the short one's  MLX peak MB  resident peak MB")
    for count, speeds, peak, resident in results:
        speed = median(speeds)
        print(
            f"{count:7,} {speed:11,.0f} {speed / usual:19.2f} {peak / 1e6:12.0f}"
            f" {resident / 1e6:17.0f}"
        )


if __name__ == "__main__":
    main()
