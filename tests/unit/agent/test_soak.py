"""The probation against a real HTTP server that says what a scenario wants it to say."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.agent import soak
from edgectl.digest import Digest
from edgectl.errors import HealthError, ServerUnavailableError
from edgectl.trust.release import SoakSettings
from tests.support.scripted import AWAY, scripted

if TYPE_CHECKING:
    from collections.abc import Callable

SLOT = Digest.of(b"slot")
SERVING = {
    "slot": SLOT.hex, "wanted": SLOT.hex, "state": "ready", "error": None,
    "requests": 10, "errors": 0,
}  # fmt: skip
LOADING = SERVING | {"slot": None, "state": "loading", "requests": 0}
OTHER = SERVING | {"slot": Digest.of(b"other").hex}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_LOOK", 0.01)


@pytest.fixture
def watch() -> Callable[..., soak.SoakReport]:
    def run(
        answers: list[dict[str, Any] | None], seconds: float = 0.3, patience: float = 30.0
    ) -> soak.SoakReport:
        script = [AWAY if answer is None else (200, answer) for answer in answers]
        with scripted(script) as server:
            return soak.watch(
                server, SLOT, SoakSettings(seconds, 0.1), patience=patience, stop=Event()
            )

    return run


def test_a_healthy_slot_passes(watch: Callable[..., soak.SoakReport]) -> None:
    assert watch([SERVING]) == soak.SoakReport(10, 0)


def test_errors_end_it(watch: Callable[..., soak.SoakReport]) -> None:
    with pytest.raises(HealthError, match="20 of 100 requests failed"):
        watch([SERVING, SERVING | {"requests": 100, "errors": 20}], seconds=60)


def test_a_server_that_is_restarted_is_waited_for(watch: Callable[..., soak.SoakReport]) -> None:
    """An upgrade of the server takes longer than a few looks, and says nothing about a model."""
    away = [SERVING, *[None] * 8, *[LOADING] * 4, SERVING | {"requests": 2}]
    assert watch(away, seconds=0.1) == soak.SoakReport(2, 0)


def test_a_server_that_stays_away_is_not_proven_to_be_the_model_s_fault(
    watch: Callable[..., soak.SoakReport],
) -> None:
    with pytest.raises(ServerUnavailableError):
        watch([SERVING, None], seconds=60, patience=0.05)
    with pytest.raises(ServerUnavailableError):
        watch([SERVING, LOADING], seconds=60, patience=0.05)


def test_a_server_that_keeps_dying_of_it_ends_it(watch: Callable[..., soak.SoakReport]) -> None:
    with pytest.raises(HealthError, match="3 times"):
        watch([SERVING, None, SERVING, None, LOADING, SERVING, None, SERVING], seconds=60)


@pytest.mark.parametrize(
    "answer",
    [OTHER, SERVING | {"slot": None, "state": "failed", "error": "it is broken"}],
)
def test_a_server_that_serves_something_else_ends_it(
    watch: Callable[..., soak.SoakReport], answer: dict[str, Any]
) -> None:
    with pytest.raises(HealthError, match="the server is"):
        watch([SERVING, answer], seconds=60)
