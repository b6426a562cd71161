"""``mlx-stella embed --output FOLDER/``: a file of any length into numbered Parquet parts.

$ mlx-stella embed --input big.parquet --output vectors/ --model all-minilm-l6-v2
"""

import os
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_stella.cli.options import with_task
from mlx_stella.cli.progress import progress_lines
from mlx_stella.cli.terminal import tell
from mlx_stella.errors import InputError, StellaError

if TYPE_CHECKING:
    from mlx_stella.encoding.settings import EncodeOptions

_LISTED = 10


def embed_folder(
    input: str | None,
    field: str | None,
    output: str,
    model: str,
    dtype: str | None,
    memory_limit: int | None,
    choice: "EncodeOptions",
    task: str | None,
) -> None:
    """Embed what is not done yet; a line at the end tells what there is.

    Raises:
        InputError: input or output cannot be used.
        StellaError: a row failed, or a part is left; what was done is kept.
    """
    from mlx_stella.machine.packages import require

    require("search")
    if input in (None, "-"):
        raise InputError("parts are made of a file", where=output, remedy="name one with --input")
    if "://" in output:
        raise InputError("no folder of this machine", where=output, remedy="name one")
    from mlx_stella.bulk import manifest
    from mlx_stella.bulk.input_file import InputFile
    from mlx_stella.bulk.parts import read_failed
    from mlx_stella.bulk.ranks import launched
    from mlx_stella.bulk.run import embed_file
    from mlx_stella.loading import load_recorded

    folder = Path(output)
    ranks = launched()
    source = InputFile(Path(input), field)
    made = manifest.read(folder)
    encoder = load_recorded(model, made.origin if made else None, dtype, memory_limit, where=output)
    label = "Embedding" if ranks.size == 1 else f"rank {ranks.rank}"
    with ExitStack() as stack:
        report = embed_file(
            source,
            folder,
            encoder,
            model,
            ranks,
            lambda rows: stack.enter_context(progress_lines(label, rows)),
            **with_task(choice, task, encoder),
        )
    if report.cut:
        tell(f"{label}: {report.cut} texts were cut, being too long")
    if ranks.rank == 0:
        for row in islice(read_failed(folder), _LISTED):
            tell(f"failed: row {row['row']} (line {row['line']}): {row['reason']}")
        tell(
            f"{report.rows:,} rows of {input} in {output}: {report.before:,} done before, "
            f"{report.failed:,} failed"
        )
    ranks.meet()  # rank 0 has spoken before any of them ends
    if ranks.rank and (report.left or report.failed):
        raise SystemExit(1)
    if report.left:
        raise StellaError(f"{report.left} parts are left", where=output, remedy="run it again")
    if report.failed:
        raise StellaError(
            f"{report.failed} of {report.rows} rows failed; "
            f"{os.path.join(output, '')}failed-*.jsonl say why",
            remedy="embed them again, mended, into another folder",
        )
