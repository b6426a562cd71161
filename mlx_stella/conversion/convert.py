"""One checkpoint to another: planned, written tensor by tensor, compared, put in place."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

from mlx_stella import __version__
from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.checkpoint import Checkpoint, open_checkpoint
from mlx_stella.checkpoint.origin import Origin, fingerprint, revision_of
from mlx_stella.checkpoint.weights import DTYPES
from mlx_stella.conversion import (
    calibration,
    card,
    destination,
    other_files,
    plan,
    recipes,
    rounding,
)
from mlx_stella.conversion.calibration import Calibration, Texts
from mlx_stella.conversion.safetensors_writer import SafetensorsWriter
from mlx_stella.errors import InputError, kept_if_interrupted
from mlx_stella.evaluation.closeness import Closeness, compare
from mlx_stella.machine.process_memory import peak_resident_bytes
from mlx_stella.models.formats import Format
from mlx_stella.quantization.allocate import WIDTHS

TellStage = Callable[[str, int, int], None]
"""Told the name of a stage, and how much of it is done, of how much."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        dtype: of float matrices, and of scales: "float16", "bfloat16" or "float32".
        format: of quantized matrices; None leaves all float.
        recipe: a name for other formats of some layers, see :mod:`mlx_stella.conversion.recipes`.
        calibration: texts on which codes are chosen; None rounds.
        seed: of what calibration draws.
        target_bits: bits per weight, for which widths are chosen on those texts, too (so there
            have to be some); the bits of ``format`` then do not count.
    """

    dtype: str
    format: Format | None = None
    recipe: str | None = None
    calibration: Texts | None = None
    seed: int = 0
    target_bits: float | None = None


class Conversion:
    """A conversion that was planned and may be carried out."""

    def __init__(self, source: hub.FoundModel, request: Request):
        """Raises CheckpointError or InputError if the source cannot be converted so."""
        self.source, self.request = source, request
        self.checkpoint = self._open(source.directory)
        self.format = request.format
        if request.calibration is not None and (self.format is None or not self.format.is_affine):
            raise InputError(
                "calibration chooses the codes of affine groups", remedy="--bits, --mode affine"
            )
        formats: dict[str, Format] = {}
        if request.format is not None:
            formats = dict.fromkeys(plan.matrices(self.checkpoint), request.format)
            if request.recipe is not None:
                formats |= recipes.exceptions(request.recipe, self.checkpoint, request.format)
        self._plan(formats)
        if request.target_bits is not None:
            self._check_target(request.target_bits)
        self.calibration = None
        if request.calibration is not None:
            self.calibration = Calibration(self.checkpoint, request.calibration, request.seed)

    def _plan(self, formats: Mapping[str, Format]) -> None:
        """Set formats by layer of the model; without one it stays float."""
        self.formats = formats
        self.pieces = plan.pieces(self.checkpoint, formats)

    def _check_target(self, target: float) -> None:
        least = 8 * calibration.least_bytes(self.pieces, self.request.dtype)
        parameters = self.checkpoint.parameters
        if not target * parameters >= least:  # nor if it is not a number
            bits = ceil(100 * least / parameters) / 100
            raise InputError(
                f"{target} bits per weight are too few: 2 bits throughout take {bits}, with "
                "scales, norms and biases",
                remedy=f"--target-bits {bits} or more",
            )

    @property
    def chooses_widths(self) -> bool:
        """Whether widths are chosen when the conversion is carried out."""
        return self.request.target_bits is not None

    def _budget_bytes(self, target: float) -> int:
        return int(min(target, 32.0) * self.checkpoint.parameters / 8)  # it may be infinite

    def _open(self, directory: Path) -> Checkpoint:
        return open_checkpoint(directory, self.source.entry)

    @property
    def backbone_bytes(self) -> int:
        """On disk, as planned; at most, where widths are yet to be chosen."""
        if self.request.target_bits is not None:
            return self._budget_bytes(self.request.target_bits)
        return sum(piece.size_bytes(self.request.dtype) for piece in self.pieces)

    @property
    def other_bytes(self) -> int:
        """Of heads, tokenizer and everything else that is written, as in the source."""
        files = other_files.copied(self.checkpoint)
        files.append(self.checkpoint.backbone_directory / "config.json")
        return sum(file.stat().st_size for file in files)

    def run(
        self, target: Path, texts: Texts, overwrite: bool, report: TellStage
    ) -> tuple[dict[str, Any], list[Closeness]]:
        """Write the checkpoint; returns what conversion.json says, and how close its vectors are.

        Raises:
            InputError: the target exists, or cannot be written to.
            OutputError: the disk is full; nothing is left behind.
        """
        destination.check(target, self.checkpoint.directory, overwrite)
        destination.check_space(target, self.backbone_bytes + self.other_bytes)
        note = f"{target} is as it was before, or whole; run it again"
        with kept_if_interrupted(note), destination.unfinished(target) as place:
            calibrated = self._calibrate(report)
            other_files.write(self.checkpoint, place, self.request.dtype, self.format, self.pieces)
            size_bytes = self._write_weights(place, calibrated, report)
            peak_bytes = peak_resident_bytes()
            total = 2 * len(texts.texts)
            rows = compare(
                self.checkpoint,
                self._open(place),
                texts.texts,
                lambda progress: report("comparing", progress.texts, total),
            )
            facts = self._facts(target, place, size_bytes, peak_bytes, texts, rows)
            words = card.card(facts, rows, self.checkpoint.dims)
            (place / destination.CARD).write_text(words, encoding="utf-8")
            (place / destination.PROOF).write_text(json.dumps(facts, indent=2) + "\n")
        return facts, rows

    def _calibrate(self, report: TellStage) -> rounding.Calibrated:
        """Choose widths, if they are to be chosen; quantized matrices, as they are asked for."""
        texts, format, target = self.calibration, self.format, self.request.target_bits
        if texts is None or format is None:
            return ()
        dtype = DTYPES[self.request.dtype]
        sensitivities = texts.measure(
            [replace(format, bits=bits) for bits in WIDTHS] if target is not None else [],
            dtype,
            lambda *progress: report("measuring", *progress),
        )
        if target is not None:
            self._choose(sensitivities.losses, format, target)
        return texts.matrices(
            self.formats, sensitivities, dtype, lambda *progress: report("calibrating", *progress)
        )

    def _choose(
        self, losses: Mapping[str, Mapping[int, float]], format: Format, target: float
    ) -> None:
        """Set widths for the target; the commonest becomes the default that config.json states."""
        budget = self._budget_bytes(target)
        widths = calibration.widths(self.pieces, losses, budget, self.request.dtype)
        commonest, _ = Counter(widths.values()).most_common(1)[0]
        self.format = replace(format, bits=commonest)
        self._plan({layer: replace(format, bits=bits) for layer, bits in widths.items()})

    def _write_weights(
        self, place: Path, calibrated: rounding.Calibrated, report: TellStage
    ) -> int:
        """Write the backbone's tensors; returns their bytes."""
        backbone = self.checkpoint.backbone_directory
        names = [name for piece in self.pieces for name in piece.names]
        writer = SafetensorsWriter(place / backbone.relative_to(self.checkpoint.directory), names)
        arrays = self.checkpoint.files.load()
        for name, array in rounding.tensors(self.pieces, arrays, self.request.dtype, calibrated):
            writer.add(name, array)
            report("writing", writer.size_bytes, self.backbone_bytes)
        writer.finish()
        return writer.size_bytes

    def _facts(
        self,
        target: Path,
        place: Path,
        size_bytes: int,
        peak_bytes: int,
        texts: Texts,
        rows: Sequence[Closeness],
    ) -> dict[str, Any]:
        files = destination.files(place)
        return {
            "name": target.name,
            "source": self.source.repo,
            "origin": asdict(self._origin()),
            "licence": card.licence(self.source),
            "dtype": self.request.dtype,
            "format": self._format_words(),
            "recipe": "auto" if self.chooses_widths else self.request.recipe,
            "calibration": self._calibration_facts(),
            "folded": any(piece.part is None for piece in self.pieces),
            "parameters": self.checkpoint.parameters,
            "bits_per_weight": 8 * size_bytes / self.checkpoint.parameters,
            "size_bytes": sum((place / name).stat().st_size for name in files),
            "peak_memory_bytes": peak_bytes,
            "comparison": {
                "texts": len(texts.texts),
                "text_source": texts.source,
                "dims": card.proof(rows),
            },
            "versions": {"mlx-stella": __version__, "mlx": version("mlx")},
            "files": sorted([*files, destination.CARD, destination.PROOF]),
        }

    def _origin(self) -> Origin:
        """Of the source; a folder by its name alone, as the record is made to be uploaded."""
        directory = self.source.directory
        name = self.source.repo or directory.resolve().name
        return Origin(name, revision_of(directory), fingerprint(directory))

    def _format_words(self) -> str | None:
        if self.format is None or not self.chooses_widths:
            return None if self.format is None else str(self.format)
        bits = sorted({format.bits for format in self.formats.values()})
        words = " to ".join(map(str, dict.fromkeys((bits[0], bits[-1]))))
        return f"{words} bits in groups of {self.format.group_size}"

    def _calibration_facts(self) -> dict[str, Any] | None:
        if self.calibration is None:
            return None
        texts = self.calibration.texts
        return {
            "texts": len(texts.texts),
            "text_source": texts.source,
            "seed": self.calibration.seed,
            "target_bits": self.request.target_bits,
        }
