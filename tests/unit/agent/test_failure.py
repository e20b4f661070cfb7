from __future__ import annotations

import pytest

from edgectl.agent.failure import from_text, refusal, to_text
from edgectl.agent.state import PollRecord
from edgectl.errors import HealthError, RegistryUnavailableError


def test_a_failure_is_persisted_with_what_the_other_side_asked_for() -> None:
    error = RegistryUnavailableError("too many requests", hint="wait", retry_after=2.5)
    assert from_text(to_text(error)) == {
        "code": "registry-unavailable",
        "message": "too many requests",
        "hint": "wait",
        "retryAfter": "2.5",
    }


@pytest.mark.parametrize("text", ["{", '{"retryAfter": "2n5"}'])
def test_a_failure_that_is_damaged(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_text(text)


def test_a_refusal_whose_reason_is_lost_still_refuses() -> None:
    error = refusal(PollRecord(refusal={"code": "unhealthy", "messige": "it is wrong"}))
    assert isinstance(error, HealthError)
