"""What indexing takes beside embedding, and whether its memory stays flat.

    $ python scripts/bench_index.py all-minilm-l6-v2 FOLDER
      chunks  seconds  resident peak MB
    ...
       3,074     54.8               553
          at the end               566
    embedding 53.62 s; the rest of indexing 1.40 s, 2.5% of both; imports and loading 1.52 s:
    all but embedding is 5.2% of the whole process

Times are those of this process from its first line; embedding is all that the model's
``encode_document`` takes. The peak of resident memory is told after each commit, so a last one
that is no higher than those before says that nothing grows.
"""

import time

START = time.perf_counter()  # imports count

import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from mlx_stella import Index, load  # noqa: E402
from mlx_stella.machine.process_memory import peak_resident_bytes  # noqa: E402

LINES = 12  # of the table of memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path, help="what is indexed")
    arguments = parser.parse_args()

    embedding = 0.0
    commits: list[tuple[int, float, int]] = []

    def timed(texts: list[str], **options) -> np.ndarray:
        nonlocal embedding
        start = time.perf_counter()
        vectors = encode_document(texts, **options)
        embedding += time.perf_counter() - start
        return vectors

    def tell(files: int, chunks: int) -> None:
        commits.append((chunks, time.perf_counter() - begin, peak_resident_bytes()))

    with tempfile.TemporaryDirectory() as folder:
        model = load(arguments.model)
        encode_document, model.encode_document = model.encode_document, timed
        begin = time.perf_counter()
        Index.create(f"{folder}/index", model).update(arguments.folder, progress=lambda _: tell)
    end = time.perf_counter()

    print("  chunks  seconds  resident peak MB")
    for chunks, seconds, peak in commits[:: max(1, len(commits) // LINES)] + commits[-1:]:
        print(f"{chunks:8,} {seconds:8.1f} {peak / 1e6:17.0f}")
    print(f"      at the end {peak_resident_bytes() / 1e6:17.0f}")
    indexing = end - begin - embedding
    print(f"embedding {embedding:.2f} s; the rest of indexing {indexing:.2f} s,", end=" ")
    print(f"{indexing / (end - begin):.1%} of both; imports and loading {begin - START:.2f} s:")
    print(f"all but embedding is {1 - embedding / (end - START):.1%} of the whole process")


if __name__ == "__main__":
    main()
