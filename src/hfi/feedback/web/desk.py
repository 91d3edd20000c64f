"""The one thread that does the database's work for open pages: answers first, then what they ask.

There is one writer at a time and one interpreter, so more threads would only wait for each other, and an answer behind a burst of
`next`. Other pages have threads of their own.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import PriorityQueue
from typing import TypeVar

R = TypeVar("R")
SAVE, ASK, END = 0, 1, 2  # in this order


class Desk:
    """Work is done in the order of its rank, and within a rank as it came."""

    def __init__(self) -> None:
        self._waiting: PriorityQueue[tuple] = PriorityQueue()
        self._number = itertools.count()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def do(self, rank: int, work: Callable[..., R], *given: object) -> R:
        """What `work` returns or raises."""
        future: Future[R] = Future()
        self._waiting.put((rank, next(self._number), future, work, given))
        self._open()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread when it has done what was asked."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put((END, next(self._number)))
            thread.join()

    def _open(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (job := self._waiting.get())[0] != END:
            _, _, future, work, given = job
            if not future.set_running_or_notify_cancel():  # whoever asked has gone
                continue
            try:
                future.set_result(work(*given))
            except BaseException as error:  # raised where it was asked
                future.set_exception(error)
            del job, future, work, given  # nothing is held while the desk is empty
