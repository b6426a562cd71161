"""What each tensor of a checkpoint becomes, before any is read: names, types, sizes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlx.core as mx

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.checkpoint.weights import Assembly
from mlx_stella.errors import InputError
from mlx_stella.models.formats import Format

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Piece:
    """A tensor to be written.

    Attributes:
        name: its name in the file, which is the source's, so that others find it there.
        assembly: the parameter of the model that it is, or is a part of.
        part: which of the assembly's sources it is; None if it is made of all of them.
        rows: which rows of the parameter.
        shape: of it.
        format: how it is quantized; None if it stays float.
    """

    name: str
    assembly: Assembly
    part: int | None
    rows: slice
    shape: tuple[int, ...]
    format: Format | None

    @property
    def is_matrix(self) -> bool:
        return len(self.assembly.shape) >= 2

    @property
    def path(self) -> str:
        """The name of its layer, under which config.json states a format."""
        return self.name.removesuffix(".weight")

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that are written for it."""
        parts = () if self.format is None else (f"{self.path}.scales", f"{self.path}.biases")
        return (self.name, *parts)

    def size_bytes(self, dtype: str) -> int:
        """On disk, where dtype is that of float matrices and of scales; vectors count as four."""
        if self.format is not None:
            return self.format.size_bytes(self.shape, BYTES[dtype])
        return math.prod(self.shape) * (BYTES[dtype] if self.is_matrix else 4)

    def value(self, arrays: Mapping[str, mx.array]) -> mx.array:
        """The tensor of the source, float, lazy."""
        if self.part is None:
            return self.assembly.make(*self.assembly.values(arrays))
        return self.assembly.sources[self.part].value(arrays)


def pieces(checkpoint: Checkpoint, widths: Mapping[str, Format]) -> list[Piece]:
    """All tensors to be written.

    Args:
        checkpoint: the source, not quantized.
        widths: format by matrix of the model (path of its layer); those not named stay float.

    Raises:
        InputError: the source is quantized, or a matrix's rows cannot be divided into groups.
    """
    if checkpoint.is_quantized:
        raise InputError(
            "is quantized already, and would lose more a second time",
            where=checkpoint.directory,
            remedy="convert the original",
        )
    result = [
        piece
        for assembly in checkpoint.assemblies
        for piece in _pieces(assembly, widths.get(layer_of(assembly)))
    ]
    _check_groups(result)
    return result


def layer_of(assembly: Assembly) -> str:
    """The path of the layer that a parameter belongs to."""
    return assembly.parameter.rpartition(".")[0]


def matrices(checkpoint: Checkpoint) -> list[str]:
    """The layers of the model that hold a matrix: products and embeddings."""
    return [layer_of(assembly) for assembly in checkpoint.assemblies if len(assembly.shape) >= 2]


def _pieces(assembly: Assembly, format: Format | None) -> Iterator[Piece]:
    if len(assembly.shape) < 2:
        format = None
    if not (assembly.is_stacked or len(assembly.sources) == 1):  # folded: the parts are gone
        yield Piece(assembly.parameter, assembly, None, slice(None), assembly.shape, format)
        return
    start = 0
    for part, source in enumerate(assembly.sources):
        rows = slice(start, start + source.shape[0])
        start = rows.stop
        yield Piece(source.name, assembly, part, rows, source.shape, format)


def _check_groups(pieces: list[Piece]) -> None:
    grouped = [(piece, piece.format) for piece in pieces if piece.format is not None]
    wrong = [(piece, format) for piece, format in grouped if not format.divides(piece.shape[1])]
    if not wrong:
        return
    columns = sorted({piece.shape[1] for piece, _ in wrong})
    every = {piece.shape[1] for piece, _ in grouped}
    fitting = [size for size in (32, 64, 128) if all(number % size == 0 for number in every)]
    if fitting:
        remedy = f"--group-size {' or '.join(map(str, fitting))}"
    elif all(number % 16 == 0 for number in every):
        remedy = "--mode nvfp4, whose groups are 16"
    else:
        remedy = "--dtype alone, without bits"
    piece, format = wrong[0]
    raise InputError(
        f"{len(wrong)} matrices, such as {piece.path}, have rows of "
        f"{', '.join(map(str, columns))} numbers, which groups of {format.group_size} do "
        "not divide",
        remedy=remedy,
    )
