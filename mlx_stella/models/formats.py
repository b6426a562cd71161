"""How a quantized matrix is stored: mode, bits and group size; what of it MLX offers.

A matrix (N, D) becomes ``weight`` (N, D * bits / 32) uint32 and ``scales`` (N, D / group_size);
in the mode affine, ``biases`` like the scales too, and a number is ``code * scale + bias``.
config.json states the format under "quantization", with other formats of single matrices keyed by
their names, as mlx-lm writes it. The tensors themselves say the same, and they are what counts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_stella.errors import ConfigError, InputError

# mode -> (bits, group sizes), the default of each first
_OFFERED = {
    "affine": ((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
MODES = tuple(_OFFERED)


@dataclass(frozen=True)
class Format:
    """Bits of a number, numbers that share a scale, and how they are coded."""

    bits: int
    group_size: int
    mode: str = "affine"

    def __str__(self) -> str:
        mode = "" if self.mode == "affine" else f" ({self.mode})"
        return f"{self.bits} bits in groups of {self.group_size}{mode}"

    @property
    def is_affine(self) -> bool:
        return self.mode == "affine"

    @property
    def is_offered(self) -> bool:
        bits, group_sizes = _OFFERED.get(self.mode, ((), ()))
        return self.bits in bits and self.group_size in group_sizes

    @property
    def config(self) -> dict[str, Any]:
        """As config.json states it."""
        return asdict(self)

    def divides(self, columns: int) -> bool:
        """Whether rows of this many numbers can be stored so."""
        return columns % self.group_size == 0

    def size_bytes(self, shape: tuple[int, ...], scale_bytes: int) -> int:
        """Of a matrix (N, D); ``scale_bytes`` is the size of a number of affine scales."""
        rows, columns = shape
        scales = rows * (columns // self.group_size)
        codes = rows * columns * self.bits // 8
        return codes + scales * (2 * scale_bytes if self.mode == "affine" else 1)


def choose(bits: int | None, group_size: int | None, mode: str) -> Format:
    """The format asked for, with the mode's own defaults.

    Raises:
        InputError: MLX does not offer it; the message says what it offers.
    """
    if mode not in _OFFERED:
        raise InputError(f"mode {mode!r} is unknown", remedy=f"one of {', '.join(MODES)}")
    offered_bits, group_sizes = _OFFERED[mode]
    chosen = Format(bits or offered_bits[0], group_size or group_sizes[0], mode)
    if not chosen.is_offered:
        raise InputError(
            f"{chosen} is not among what MLX offers",
            remedy=f"for {mode} {_alternatives(offered_bits)} bits in groups of "
            f"{_alternatives(group_sizes)}",
        )
    return chosen


def _alternatives(numbers: tuple[int, ...]) -> str:
    *others, last = map(str, sorted(numbers))
    return f"{', '.join(others)} or {last}" if others else last


def of_shapes(
    weight: tuple[int, ...], scales: tuple[int, ...], has_biases: bool, columns: int
) -> Format:
    """The format of a stored matrix whose rows have ``columns`` numbers.

    Raises:
        ValueError: the shapes do not belong together, or to no format of MLX.
    """
    if len(weight) != 2 or len(scales) != 2 or weight[0] != scales[0] or 0 in scales:
        raise ValueError(f"weight {weight} and scales {scales} do not belong together")
    bits, rest = divmod(32 * weight[1], columns)
    group_size, more = divmod(columns, scales[1])
    modes = ("affine",) if has_biases else ("mxfp4", "mxfp8", "nvfp4")
    for mode in modes:
        found = Format(bits, group_size, mode)
        if found.is_offered and not rest and not more:
            return found
    raise ValueError(
        f"weight {weight} and scales {scales} {'with' if has_biases else 'without'} biases are "
        f"no format of MLX for rows of {columns}"
    )


@dataclass(frozen=True)
class Stated:
    """What config.json says: a format for all matrices, and others (None: float) by name."""

    default: Format | None = None
    exceptions: Mapping[str, Format | None] | None = None

    def contradicts(self, name: str, found: Format) -> bool:
        """Whether it says something else of this matrix."""
        if self.exceptions and name in self.exceptions:
            return self.exceptions[name] != found
        return self.default is not None and self.default != found


def read(config: Mapping[str, Any], file: Path) -> Stated:
    """The entry "quantization" of a config.json, or "quantization_config" where that is alone.

    Raises:
        ConfigError: it is malformed, or of another kind than MLX's (GPTQ, bitsandbytes ...).
    """
    entry = config.get("quantization", config.get("quantization_config"))
    if entry is None:
        return Stated()
    if isinstance(entry, dict) and "quant_method" in entry:
        raise ConfigError(
            f"quantized by {entry['quant_method']!r}, which is not implemented",
            where=file,
            remedy="use the original, or a copy quantized with MLX",
        )
    if not isinstance(entry, dict):
        raise ConfigError("quantization is no object", where=file, remedy="download it again")
    settings = {k: v for k, v in entry.items() if not isinstance(v, dict) and v is not False}
    default = _parse(settings, file)
    exceptions = {
        name: _parse({**settings, **value}, file) if value else None
        for name, value in entry.items()
        if isinstance(value, dict) or value is False
    }
    return Stated(default, exceptions)


def _parse(entry: Mapping[str, Any], file: Path) -> Format:
    bits, group_size = entry.get("bits"), entry.get("group_size")
    mode = entry.get("mode", "affine")
    if type(bits) is int and type(group_size) is int and isinstance(mode, str):
        found = Format(bits, group_size, mode)
        if found.is_offered:
            return found
    raise ConfigError(
        f"quantization of {bits} bits in groups of {group_size} ({mode}) is no format of MLX",
        where=file,
        remedy="download it again",
    )
