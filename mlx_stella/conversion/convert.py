"""One checkpoint to another: planned, written tensor by tensor, compared, put in place."""

import json
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_stella import __version__, hub
from mlx_stella.checkpoint import Checkpoint, open_checkpoint
from mlx_stella.compare import Closeness, compare
from mlx_stella.conversion import card, folder, output, plan, recipes, rounding
from mlx_stella.conversion.writer import SafetensorsWriter
from mlx_stella.formats import Format

Report = Callable[[str, int, int], None]
"""Told the name of a stage, and how much of it is done, of how much."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        dtype: of float matrices, and of scales: "float16", "bfloat16" or "float32".
        format: of quantized matrices; None leaves all float.
        exceptions: other formats by layer of the model (None: float).
        recipe: a name for exceptions of a kind, see :mod:`mlx_stella.conversion.recipes`.
    """

    dtype: str
    format: Format | None = None
    exceptions: Mapping[str, Format | None] = field(default_factory=dict)
    recipe: str | None = None


@dataclass(frozen=True)
class Texts:
    """What both models are compared on: the texts, and words that say where they are from."""

    texts: Sequence[str]
    source: str


class Conversion:
    """A conversion that was planned and may be carried out."""

    def __init__(self, source: hub.Source, request: Request):
        """Raises CheckpointError or InputError if the source cannot be converted so."""
        self.source, self.request = source, request
        self.checkpoint = self._open(source.directory)
        layers = plan.matrices(self.checkpoint)
        exceptions = dict(request.exceptions)
        if request.recipe is not None:
            exceptions |= recipes.exceptions(request.recipe, self.checkpoint, request.format)
        formats = {layer: exceptions.get(layer, request.format) for layer in layers}
        widths = {layer: format for layer, format in formats.items() if format is not None}
        self.pieces = plan.pieces(self.checkpoint, widths)

    def _open(self, directory: Path) -> Checkpoint:
        entry = self.source.entry
        return open_checkpoint(directory, entry.prompts if entry else None)

    @property
    def backbone_bytes(self) -> int:
        """On disk, as planned."""
        return sum(piece.size_bytes(self.request.dtype) for piece in self.pieces)

    @property
    def other_bytes(self) -> int:
        """Of heads, tokenizer and everything else in folders, as in the source."""
        files = [f for f in self.checkpoint.directory.rglob("*") if f.is_file()]
        weights = set(self.checkpoint.files.paths)
        return sum(file.stat().st_size for file in files if file not in weights)

    def run(
        self, target: Path, texts: Texts, overwrite: bool, report: Report
    ) -> tuple[dict[str, Any], list[Closeness]]:
        """Write the checkpoint; returns what conversion.json says, and how close its vectors are.

        Raises:
            InputError: the target exists, or cannot be written to.
            OutputError: the disk is full; nothing is left behind.
        """
        output.check(target, self.checkpoint.directory, overwrite)
        output.check_space(target, self.backbone_bytes + self.other_bytes)
        with output.unfinished(target) as place:
            folder.write(
                self.checkpoint, place, self.request.dtype, self.request.format, self.pieces
            )
            size_bytes = self._write_weights(place, report)
            peak_bytes = peak_memory_bytes()
            total = 2 * len(texts.texts)
            rows = compare(
                self.checkpoint,
                self._open(place),
                texts.texts,
                lambda progress: report("comparing", progress.texts, total),
            )
            facts = self._facts(target, place, size_bytes, peak_bytes, texts, rows)
            words = card.card(facts, rows, self.checkpoint.dims)
            (place / "README.md").write_text(words, encoding="utf-8")
            (place / output.PROOF).write_text(json.dumps(facts, indent=2) + "\n")
        return facts, rows

    def _write_weights(self, place: Path, report: Report) -> int:
        """Write the backbone's tensors; returns their bytes."""
        backbone = self.checkpoint.backbone_directory
        names = [name for piece in self.pieces for name in piece.names]
        writer = SafetensorsWriter(place / backbone.relative_to(self.checkpoint.directory), names)
        arrays = self.checkpoint.files.load()
        for name, array in rounding.tensors(self.pieces, arrays, self.request.dtype):
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
        format = self.request.format
        return {
            "name": target.name,
            "source": self.source.repo,
            "licence": card.licence(self.source),
            "dtype": self.request.dtype,
            "format": None if format is None else str(format),
            "recipe": self.request.recipe,
            "folded": any(piece.part is None for piece in self.pieces),
            "parameters": self.checkpoint.parameters,
            "bits_per_weight": 8 * size_bytes / self.checkpoint.parameters,
            "size_bytes": sum(f.stat().st_size for f in place.rglob("*") if f.is_file()),
            "peak_memory_bytes": peak_bytes,
            "comparison": {
                "texts": len(texts.texts),
                "text_source": texts.source,
                "dims": card.proof(rows),
            },
            "versions": {"mlx-stella": __version__, "mlx": mx.__version__},
        }


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
