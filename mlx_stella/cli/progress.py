"""Progress on stderr: a bar on a terminal, for the longest runs lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_stella.cli import terminal
from mlx_stella.encoding.progress import Progress

Move = Callable[[str, int, int, str], None]
"""Told a label, how much of it is done, of how much, and a note that stands behind the bar."""


@contextmanager
def bars() -> Iterator[Move | None]:
    """A bar for each label that is told; None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[note]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, rich.TaskID] = {}

        def move(label: str, done: int, total: int, note: str) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total, note=note)
            shown.update(tasks[label], completed=done, note=note)

        yield move


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[Progress], None] | None]:
    """A callback that moves a bar of texts; None where there is nothing to show it on."""
    with bars() as move:
        if move is None or total < 2:
            yield None
            return

        def tell(progress: Progress) -> None:
            done = progress.texts
            move(label, done, total, f"{done:,}/{total:,} texts, {_speed(progress)}")

        move(label, 0, total, "")
        yield tell


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
            terminal.tell(f"{done}, {_duration(progress.seconds_left or 0)} left")

        yield tell


@contextmanager
def files_bar(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A callback (files done since, chunks done in all) that moves a bar on a terminal."""
    done = 0
    with bars() as move:

        def tell(files: int, chunks: int) -> None:
            nonlocal done
            done += files
            if move is not None:
                move(label, done, total, f"{done:,}/{total:,} files, {chunks:,} chunks")

        tell(0, 0)
        yield tell


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, done, of how much) that moves a bar a stage on a terminal."""
    with bars() as move:

        def tell(stage: str, done: int, total: int) -> None:
            if move is not None:
                move(stage, done, total, f"{done / max(total, 1):.0%}")

        yield tell


def _speed(progress: Progress) -> str:
    return f"{progress.texts_per_second:,.0f} texts/s, {progress.tokens_per_second:,.0f} tokens/s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
