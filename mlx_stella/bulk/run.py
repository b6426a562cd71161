"""Embed a file into a folder of parts: whatever is not done yet, and nothing twice.

A part is done when it is in place. A run that was stopped at any moment loses no more than the
part it was at. Several ranks share the parts that are left; each part is of one rank.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Unpack, cast

import numpy as np

from mlx_stella import __version__
from mlx_stella.bulk import parts
from mlx_stella.bulk.embedding import embed_rows
from mlx_stella.bulk.input_file import InputFile
from mlx_stella.bulk.manifest import Manifest, settle
from mlx_stella.bulk.ranks import Ranks
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.progress import Progress, Reporter
from mlx_stella.encoding.settings import EncodeOptions, Settings
from mlx_stella.encoding.windows import WINDOW_TEXTS
from mlx_stella.errors import kept_if_interrupted
from mlx_stella.files import atomic, lock
from mlx_stella.files.tables import Fault, TableRow

PART_ROWS = 4 * WINDOW_TEXTS
"""Whole windows, so that batches, and with them vectors, are those of one stream to the bit."""

Tell = Callable[[int], Callable[[Progress], None] | None]
"""Told how many rows this rank has to embed, gives what is told how far it is."""


@dataclass
class BulkReport:
    """What a run did.

    Attributes:
        rows: of the input; failed: how many of them have no vector.
        before: rows that were done when this run began; by all ranks, as the others.
        left: parts that are not done.
        cut: texts of this rank that were longer than the limit.
    """

    rows: int
    failed: int
    before: int
    left: int
    cut: int


def embed_file(
    source: InputFile,
    folder: Path,
    encoder: Encoder,
    name: str,
    ranks: Ranks,
    tell: Tell = lambda rows: None,
    **options: Unpack[EncodeOptions],
) -> BulkReport:
    """Embed all rows of a file that are not in the folder yet.

    Args:
        name: what the encoder was loaded by.
        options: as ``Encoder.settings`` takes them.

    Raises:
        StoreError: the folder is being written to, or was made otherwise.
        InputError: the source cannot be read or has changed, or an option cannot be used.
        OutputError: a part cannot be written; those before it are in place.
        StellaError: another rank was lost.
    """
    settings = encoder.settings(**options)
    is_first = ranks.rank == 0
    if not is_first:
        ranks.meet()
    note = f"parts that are whole in {folder} are kept; run it again to go on"
    with lock.writing(str(folder), together=not is_first) as share, kept_if_interrupted(note):
        manifest = settle(folder, source, encoder, name, __version__, PART_ROWS, settings)
        if is_first:
            atomic.clear_leftovers(folder)
            share()
            ranks.meet()
        done = ranks.merge(_states(folder, manifest))
        mine = np.flatnonzero(done == 0)[ranks.rank :: ranks.size].tolist()
        before = sum(len(manifest.rows_of(part)) for part in np.flatnonzero(done).tolist())
        run = _Run(source, folder, encoder, manifest, mine, tell, settings)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\d+ of \d+ texts were cut")  # told in the report
            run.embed()
        states = ranks.merge(_states(folder, manifest))
    failed = int((states[states > 0] - 1).sum())
    return BulkReport(manifest.rows, failed, before, int((states == 0).sum()), run.cut)


def _states(folder: Path, manifest: Manifest) -> np.ndarray:
    """int32 (parts,): 0 for a part that is not done, else 1 and the number of failed rows."""
    failed = (parts.failures(folder, part, manifest) for part in range(manifest.parts))
    return np.array([0 if count is None else 1 + count for count in failed], np.int32)


class _Run:
    def __init__(
        self,
        source: InputFile,
        folder: Path,
        encoder: Encoder,
        manifest: Manifest,
        mine: list[int],
        tell: Tell,
        settings: Settings,
    ):
        self._source, self._folder, self._encoder = source, folder, encoder
        self._manifest, self._mine, self._settings = manifest, mine, settings
        total = sum(len(manifest.rows_of(part)) for part in mine)
        self._reporter = Reporter(tell(total), total)
        self.cut = 0

    def embed(self) -> None:
        size, wanted = self._manifest.part_rows, set(self._mine)
        rows = self._source.rows(lambda number: number // size in wanted)
        for part, group in groupby(rows, lambda pair: pair[0] // size):
            self._write(part, group)
            if part == self._mine[-1]:
                return
        if not self._manifest.rows and self._mine:
            self._write(0, iter(()))

    def _write(self, number: int, rows: Iterator[tuple[int, TableRow | Fault]]) -> None:
        before = self._reporter.texts
        with parts.writing(self._folder, number, self._manifest) as part:
            for block in embed_rows(rows, self._stream, part.fail):
                part.add(*block)
            self._source.check_unchanged()
        self._reporter.texts = before + part.written + len(part.failed)

    def _stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        last = Progress(0, None, 0, 0.0)

        def note(progress: Progress) -> None:
            nonlocal last
            self.cut += progress.cut - last.cut
            self._reporter.add(progress.texts - last.texts, progress.tokens - last.tokens)
            last = progress

        blocks = self._encoder.encode_stream(texts, settings=self._settings, progress=note)
        return cast(Iterator[np.ndarray], blocks)  # of one size: `settle` has seen to that
