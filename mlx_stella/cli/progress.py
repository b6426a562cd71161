"""Progress on stderr: a bar on a terminal, for the longest runs lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_stella.encoding.progress import Progress


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
        yield lambda progress: bar.update(task, completed=progress.texts, speed=_speed(progress))


@contextmanager
def progress_lines(
    label: str, total: int, every_seconds: float = 30.0
) -> Iterator[Callable[[Progress], None]]:
    """A callback that moves a bar on a terminal, and elsewhere prints a line now and then."""
    with progress_bar(label, total) as bar:
        if bar is not None:
            yield bar
            return
        printed = time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal printed
            if time.monotonic() - printed < every_seconds:
                return
            printed = time.monotonic()
            done = f"{label}: {progress.texts:,} of {total:,} texts, {_speed(progress)}"
            print(f"{done}, {_duration(progress.seconds_left or 0)} left", file=sys.stderr)

        yield tell


def _speed(progress: Progress) -> str:
    return f"{progress.texts_per_second:,.0f} texts/s, {progress.tokens_per_second:,.0f} tokens/s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


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
