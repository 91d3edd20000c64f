"""Progress bars with time left, on stderr, for anything that takes over two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)
T = TypeVar("T")


class _Plain(Progress):
    """Where nobody watches (a pipe, a log): one line when a task begins, nothing that moves."""

    def add_task(self, description: str, *args, total: float | None = None, **fields):
        console.print(f"{description} ({total})" if total else description, style=None, highlight=False, soft_wrap=True)
        return super().add_task(description, *args, total=total, **fields)


def bar() -> Progress:
    """A rich progress display in the project's one look; use it as a context manager."""
    if not console.is_terminal:
        return _Plain(console=console, disable=True)
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
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
