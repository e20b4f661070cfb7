"""The threads that infer, behind a bounded queue.

Not `concurrent.futures`: its queue has no bound, its threads keep a process alive at exit, and a
job costs it twice the time between the event loop and the thread.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class QueueFullError(Exception):
    """As many jobs as the queue holds are waiting already."""


class _Job(Generic[T]):
    __slots__ = ("call", "future")

    def __init__(self, call: Callable[[], T], future: asyncio.Future[T]) -> None:
        self.call: Callable[[], T] | None = call
        """None once nobody waits for it."""
        self.future = future


class InferencePool:
    """Runs jobs on a fixed number of threads; belongs to the event loop that calls `run`."""

    def __init__(self, workers: int, queue: int) -> None:
        self._capacity = workers + queue
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._work, name=f"inference-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        self.pending = 0
        """Jobs that wait or run."""

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` on a thread and return, or raise, what it does.

        A job that is cancelled while it waits never starts, and lets go of what it refers to at
        once; one that runs cannot be stopped. Either goes on counting as pending until a thread is
        done with it. Raises QueueFullError.
        """
        if self.pending >= self._capacity:
            raise QueueFullError
        self.pending += 1
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(call, future)
        self._jobs.put(job)
        try:
            return await future
        finally:
            job.call = None

    def close(self, seconds: float) -> None:
        """End the threads, waiting at most this long for what they run: an engine that is cut off
        in the middle takes the process down with a crash."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._run(job)
            del job  # A thread that waits must not hold the model of its last job.

    def _run(self, job: _Job[Any]) -> None:
        result, error = None, None
        call = job.call
        if call is not None and not job.future.cancelled():
            try:
                result = call()
            except Exception as raised:  # noqa: BLE001 - handed to whoever awaits the job
                error = raised
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            job.future.get_loop().call_soon_threadsafe(self._finish, job.future, result, error)

    def _finish(self, future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        self.pending -= 1
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
