"""Progress bars with time left, on stderr, for anything that takes over two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)
T = TypeVar("T")


def bar() -> Progress:
    """A rich progress display in the project's one look; use it as a context manager."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        transient=not console.is_terminal,
    )


def track(items: Iterable[T], description: str, total: int | None = None, start: int = 0) -> Iterator[T]:
    """Yield `items` under a progress bar.

    Args:
        items: what to iterate over.
        description: the words before the bar.
        total: how many there are in all; found by `len` when left out.
        start: how many were done before an interruption.
    """
    total = len(items) if total is None else total  # type: ignore[arg-type]
    with bar() as progress:
        task = progress.add_task(description, total=total, completed=start, note="")
        for item in items:
            yield item
            progress.advance(task)
