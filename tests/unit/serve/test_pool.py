from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from functools import partial

import pytest

from edgectl.serve.pool import InferencePool, QueueFullError


class _Held:
    """Something that a job refers to."""


def test_results_and_errors_come_back() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario() -> None:
        pool = InferencePool(2, 4)
        squares = [pool.run(partial(pow, number, 2)) for number in range(6)]
        assert await asyncio.gather(*squares) == [0, 1, 4, 9, 16, 25]
        with pytest.raises(ValueError, match="no"):
            await pool.run(fail)
        assert pool.pending == 0
        pool.close(5)

    asyncio.run(scenario())


def test_more_than_workers_and_queue_is_refused() -> None:
    async def scenario() -> None:
        go = threading.Event()
        pool = InferencePool(1, 1)
        jobs = [asyncio.ensure_future(pool.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await pool.run(go.wait)
        go.set()
        assert await asyncio.gather(*jobs) == [True, True]
        assert await pool.run(go.wait)
        pool.close(5)

    asyncio.run(scenario())


def test_job_given_up_while_it_waits_never_starts() -> None:
    async def scenario() -> None:
        go, started = threading.Event(), threading.Event()
        pool = InferencePool(1, 1)
        first = asyncio.ensure_future(pool.run(go.wait))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.run(started.set)
        assert pool.pending == 2
        go.set()
        await first
        assert await pool.run(lambda: 7) == 7
        assert not started.is_set()
        pool.close(5)

    asyncio.run(scenario())


def test_job_given_up_while_it_waits_holds_nothing() -> None:
    async def scenario() -> None:
        go = threading.Event()
        pool = InferencePool(1, 1)
        first = asyncio.ensure_future(pool.run(go.wait))
        await asyncio.sleep(0)
        held = _Held()
        gone = weakref.ref(held)
        waiting = asyncio.ensure_future(pool.run(partial(id, held)))
        del held
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
        gc.collect()
        assert gone() is None
        go.set()
        await first
        pool.close(5)

    asyncio.run(scenario())


def test_idle_threads_hold_nothing() -> None:
    async def scenario() -> None:
        pool = InferencePool(1, 1)
        held = _Held()
        gone = weakref.ref(held)
        assert await pool.run(partial(id, held))
        del held
        await pool.run(lambda: None)
        gc.collect()
        assert gone() is None
        pool.close(5)

    asyncio.run(scenario())
