"""What each part of calibration is worth: the same model in the same bits, quantized in six ways.

    $ python scripts/calibration_study.py all-minilm-l6-v2 corpus.jsonl
    sensitivities: 147 s, once for all
    4 bits  mx.quantize                              4.537 bits  cosine 0.9647  top 10 81.2%  0 s
    4 bits  groups by least squares                  4.537 bits  cosine 0.9631  top 10 80.3%  63 s
    4 bits  GPTQ                                     4.537 bits  cosine 0.9859  top 10 87.1%  67 s
    ...

Calibrated on the first texts of the corpus (``text`` fields of JSON Lines, or a text a line), and
compared with the float32 model on others, from the middle of it. A way may be chosen by its number.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mlx_stella import Encoder, load  # before MLX, which then finds the fast BLAS

import mlx.core as mx  # isort: skip
from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.cli.texts import read_records
from mlx_stella.conversion import calibration, plan
from mlx_stella.encoding.padding import Batch
from mlx_stella.evaluation.closeness import Closeness, closeness
from mlx_stella.models.formats import Format
from mlx_stella.models.quantized import Packed
from mlx_stella.quantization import sensitivity, stages
from mlx_stella.quantization.allocate import WIDTHS
from mlx_stella.quantization.calibrate import Method, calibrate
from mlx_stella.quantization.sensitivity import Sensitivities

DTYPE, KIND = "float16", mx.float16


@dataclass(frozen=True)
class Way:
    """How a model is quantized: by ``mx.quantize`` if there is no method."""

    name: str
    method: Method | None
    chooses_widths: bool = False


WAYS = (
    Way("mx.quantize", None),
    Way("groups by least squares", Method(products=False, mends=False)),
    Way("GPTQ", Method(rounds=0, mends=False)),
    Way("+ scales refitted, codes moved, twice", Method(mends=False)),
    Way("+ towards the float model, biases too", Method()),
    Way("+ bits by sensitivity", Method(), chooses_widths=True),
)


def study(
    model: Annotated[str, typer.Argument(help="An alias, a Hub id or a directory.")],
    corpus: Annotated[Path, typer.Argument(help=".jsonl or .txt")],
    bits: Annotated[list[int] | None, typer.Option(help="Default: 4 and 3.")] = None,
    way: Annotated[list[int] | None, typer.Option(help="Only these ways, from 0 to 5.")] = None,
    calibrated: Annotated[int, typer.Option(help="Texts to calibrate on.")] = 300,
    measured: Annotated[int, typer.Option(help="Texts to compare on.")] = 600,
    group_size: int = 64,
    seed: int = 0,
) -> None:
    encoder = load(model, dtype="float32")
    checkpoint = encoder.checkpoint
    texts = [record.text for record in read_records(None, str(corpus), None)]
    todo = stages.batches(checkpoint, texts[:calibrated])
    middle = max(calibrated, len(texts) // 3)
    texts = texts[middle : middle + measured]
    expected = encoder.encode_document(texts, normalize=False)
    ways = [WAYS[number] for number in way] if way else WAYS
    every = [Format(width, group_size) for width in WIDTHS] if ways[-1].chooses_widths else []
    start = time.perf_counter()
    found = sensitivity.measure(checkpoint, todo, every, KIND, seed, lambda *_: None)
    print(f"sensitivities: {time.perf_counter() - start:.0f} s, once for all", flush=True)
    for width in bits or (4, 3):
        for chosen in ways:
            start = time.perf_counter()
            format = Format(width, group_size)
            matrices = list(quantized(chosen, checkpoint, todo, format, found))
            seconds = time.perf_counter() - start
            other = with_matrices(checkpoint, matrices)
            close = closeness(expected, other.encode_document(texts, normalize=False))
            print(line(chosen, width, checkpoint, matrices, close, seconds), flush=True)


def quantized(
    way: Way, checkpoint: Checkpoint, todo: list[Batch], format: Format, found: Sensitivities
) -> Iterator[tuple[str, Packed, mx.array | None]]:
    formats: Mapping[str, Format] = dict.fromkeys(plan.matrices(checkpoint), format)
    if way.method is None:
        backbone = stages.Tapped(checkpoint)
        for path in formats:
            weight = mx.array(backbone.weight(path)).astype(KIND)
            yield path, Packed(*mx.quantize(weight, **format.config), format), None
        return
    if way.chooses_widths:
        pieces = plan.pieces(checkpoint, formats)
        budget = int((format.bits + 0.6) * checkpoint.parameters / 8)
        widths = calibration.widths(pieces, found.losses, budget, DTYPE)
        formats = {path: replace(format, bits=bits) for path, bits in widths.items()}
    yield from calibrate(
        checkpoint, todo, formats, found.metrics, KIND, lambda *_: None, way.method
    )


def with_matrices(
    checkpoint: Checkpoint, matrices: list[tuple[str, Packed, mx.array | None]]
) -> Encoder:
    backbone = checkpoint.load_backbone("float32")
    layers = dict(backbone.named_modules())
    for path, packed, bias in matrices:
        layers[path].weight = packed.expand()
        if bias is not None:
            layers[path].bias = bias
    return Encoder(checkpoint, "float32", backbone=backbone)


def line(
    way: Way,
    width: int,
    checkpoint: Checkpoint,
    matrices: list[tuple[str, Packed, mx.array | None]],
    close: Closeness,
    seconds: float,
) -> str:
    stored = sum(array.nbytes for _, packed, _ in matrices for array in packed.arrays)
    numbers = sum(np.prod(a.shape) for a in checkpoint.assemblies if len(a.shape) < 2)
    bits = 8 * (stored + 4 * numbers) / checkpoint.parameters
    return (
        f"{width} bits  {way.name:40} {bits:.3f} bits  cosine {close.mean:.4f}  "
        f"top 10 {close.neighbours_kept:.1%}  {seconds:.0f} s"
    )


if __name__ == "__main__":
    typer.run(study)
