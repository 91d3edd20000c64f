"""The one thread that does the database's work for open pages: answers first, then what they ask.

There is one writer at a time and one interpreter, so more threads would only wait for each other, and an answer behind a burst of
`next`. Answers that wait are written together: one commit, one wait for the disk, and each is acknowledged after it. Other pages have
threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, PriorityQueue
from typing import TypeVar

from hfi.feedback.events import Refused

R = TypeVar("R")
SAVE, ASK, END = 0, 1, 2  # in this order
MOST_TOGETHER = 16  # answers; so many take less time than one wait for a slow disk


@dataclass(order=True, slots=True)
class Job:
    """Something to do, sorted by rank, and within a rank as it came."""

    rank: int
    number: int
    work: Callable[[], object] = field(compare=False)
    future: Future = field(compare=False)


class Desk:
    """Does work for a store."""

    def __init__(self, together: Callable[[], contextlib.AbstractContextManager]) -> None:
        """
        Args:
            together: one transaction around several pieces of work (`Store.writing`).
        """
        self._together = together
        self._waiting: PriorityQueue[Job] = PriorityQueue()
        self._number = itertools.count()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def save(self, work: Callable[..., R], *given: object) -> R:
        """What `work` returns or raises, once it is on disk. It has to refuse before it writes, for others share its transaction."""
        return await self._do(SAVE, lambda: work(*given))

    async def ask(self, work: Callable[..., R], *given: object) -> R:
        """What `work` returns or raises; it waits for all answers that came meanwhile."""
        return await self._do(ASK, lambda: work(*given))

    def close(self) -> None:
        """End the thread when it has done what was asked."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(Job(END, next(self._number), lambda: None, Future()))
            thread.join()

    async def _do(self, rank: int, work: Callable[[], R]) -> R:
        job = Job(rank, next(self._number), work, Future())
        self._waiting.put(job)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
                self._thread.start()
        return await asyncio.wrap_future(job.future)

    def _work(self) -> None:
        while (first := self._waiting.get()).rank != END:
            jobs = [first, *self._others()] if first.rank == SAVE else [first]
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if len(jobs) < 2 or not self._done_together(jobs):
                for job in jobs:
                    _settle(job, *_outcome(job, Exception))
            del first, jobs  # nothing is held while the desk is empty

    def _others(self) -> list[Job]:
        """The answers that wait behind the first."""
        found: list[Job] = []
        with contextlib.suppress(Empty):
            while len(found) < MOST_TOGETHER - 1:
                job = self._waiting.get_nowait()
                if job.rank != SAVE:
                    self._waiting.put(job)  # to its old place
                    break
                found.append(job)
        return found

    def _done_together(self, jobs: list[Job]) -> bool:
        """Whether they could be done in one transaction; if not, nothing of it is left, and each has to be tried alone.

        Where the commit's outcome was not heard of, that is no harm: an answer that comes again is known by its identifier.
        """
        try:
            with self._together():
                outcomes = [_outcome(job, Refused) for job in jobs]
        except Exception:
            return False
        for job, outcome in zip(jobs, outcomes, strict=True):
            _settle(job, *outcome)
        return True


def _outcome(job: Job, kind: type[Exception]) -> tuple[object, Exception | None]:
    """What the work returns, or the error of that kind that it raises."""
    try:
        return job.work(), None
    except kind as error:
        return None, error


def _settle(job: Job, value: object, error: Exception | None) -> None:
    if error is None:
        job.future.set_result(value)
    else:
        job.future.set_exception(error)
