"""From a float matrix to what is stored of it."""

from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping, Sequence

import mlx.core as mx

from mlx_stella.checkpoint.weights import DTYPES, fits_float16
from mlx_stella.conversion.plan import Piece, layer_of
from mlx_stella.errors import WeightsError
from mlx_stella.models.quantized import Packed
from mlx_stella.quantization.affine import LEAST_FLOAT16_SCALE

Calibrated = Iterable[tuple[str, Packed, mx.array | None]]
"""Path of a layer of the model, its quantized matrix, and its bias if that was corrected."""


def tensors(
    pieces: Sequence[Piece],
    arrays: MutableMapping[str, mx.array],
    dtype: str,
    calibrated: Calibrated = (),
) -> Iterator[tuple[str, mx.array]]:
    """Name and value of each tensor to be written, one after another, evaluated.

    Matrices that were calibrated come first, in their order; all others are rounded or cast here.
    A tensor of ``arrays`` is removed when nothing else needs it.

    Raises:
        WeightsError: a tensor holds a value that is not finite.
    """
    waiting = {piece.name: piece for piece in pieces}
    for path, packed, bias in calibrated:
        for piece in [p for p in waiting.values() if layer_of(p.assembly) == path]:
            if piece.is_matrix:
                yield from zip(piece.names, packed[piece.rows].arrays, strict=False)
            elif bias is not None and piece.assembly.parameter == f"{path}.bias":
                yield piece.name, bias[piece.rows]
            else:
                continue
            del waiting[piece.name]
    readers = _readers(waiting.values())
    for piece in waiting.values():
        value = piece.value(arrays)
        if piece.is_matrix:
            yield from zip(piece.names, _matrix(piece, value, dtype), strict=False)
        else:
            _check_finite(piece, float(mx.abs(value).max()))
            yield piece.name, value
        del value
        for name in _read(piece):
            readers[name] -= 1
            if readers[name] == 0:
                del arrays[name]
        mx.clear_cache()


def _read(piece: Piece) -> list[str]:
    """The tensors of the source that a piece is made of."""
    if piece.part is None:
        return list(piece.assembly.names)
    return list(piece.assembly.sources[piece.part].names)


def _readers(pieces: Iterable[Piece]) -> Counter[str]:
    """How many pieces are made of each tensor of the source."""
    return Counter(name for piece in pieces for name in _read(piece))


def _matrix(piece: Piece, value: mx.array, dtype: str) -> list[mx.array]:
    """The matrix in its type, or codes, scales and, in the mode affine, biases."""
    peak = float(mx.abs(value).max().astype(mx.float32))
    _check_finite(piece, peak)
    kind = DTYPES[dtype]
    if kind == mx.float16 and not fits_float16(peak):
        kind = mx.float32
    cast = value.astype(kind)
    if piece.format is None:
        mx.eval(cast)
        return [cast]
    stored = mx.quantize(cast, **piece.format.config)
    mx.eval(stored)
    if stored[1].dtype == mx.float16 and float(mx.abs(stored[1]).max()) < LEAST_FLOAT16_SCALE:
        stored = mx.quantize(value.astype(mx.float32), **piece.format.config)
        mx.eval(stored)
    return list(stored)


def _check_finite(piece: Piece, peak: float) -> None:
    if not peak < float("inf"):
        raise WeightsError(
            "holds a value that is not finite", where=piece.name, remedy="download the model again"
        )
