"""A progress bar on stderr, for people only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_stella.progress import Progress


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[Progress], None] | None]:
    """A callback that moves a bar; None where stderr is not a terminal."""
    if not sys.stderr.isatty() or total < 2:
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn(label),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, speed="")
        yield lambda progress: bar.update(
            task, completed=progress.texts, speed=f"{progress.tokens_per_second:,.0f} tokens/s"
        )


@contextmanager
def files_bar(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A callback (files done since, chunks done in all) that moves a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda files, chunks: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn(label),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("files, {task.fields[chunks]:,} chunks"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, chunks=0)
        yield lambda files, chunks: bar.update(task, advance=files, chunks=chunks)
