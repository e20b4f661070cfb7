from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgectl.agent import backoff

uniforms = st.floats(0, 1)


@given(st.integers(1, 10_000), uniforms)
def test_delay_is_within_its_bound(attempts: int, uniform: float) -> None:
    bound = min(backoff.CAP, backoff.BASE * 2.0 ** min(attempts - 1, 30))
    assert 0 <= backoff.delay(attempts, uniform) <= bound


def test_jitter_is_full() -> None:
    assert backoff.delay(4, 0) == 0
    assert backoff.delay(4, 1) == 40


@given(st.integers(1, 50), uniforms, st.floats(0, 2800))
def test_retry_after_is_the_least(attempts: int, uniform: float, asked: float) -> None:
    assert backoff.delay(attempts, uniform, retry_after=asked) >= asked


def test_retry_after_cannot_lock_a_device_out() -> None:
    assert backoff.delay(1, 1, retry_after=1e12) == backoff.CAP


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_a_clock_that_jumped_never_locks_out(not_before: float, now: float) -> None:
    assert 0 <= backoff.remaining(not_before, now) <= backoff.CAP


def test_remaining() -> None:
    assert backoff.remaining(1_000_100, 1_000_000) == 100
    assert backoff.remaining(1_000_000, 1_000_100) == 0
    assert backoff.remaining(1_700_000_000, 0) == 0  # the clock went back to 1970
