"""Accuracy through a real HTTP server that answers what a scenario wants it to answer."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.agent import accuracy
from edgectl.digest import Digest
from edgectl.engine.labels import Sample
from edgectl.errors import ConfigError, EdgectlError, HealthError, ServerUnavailableError
from edgectl.serve.slot import SlotModel
from tests.support.scripted import Answer, scripted
from tests.support.slots import make_digits

if TYPE_CHECKING:
    from pathlib import Path

MODEL = SlotModel(
    "digits", "1.0.0", Digest.of(b"i"), Digest.of(b"m"), "server-amd64", "onnxruntime", "fp32"
)
RIGHT = (200, {"outputs": [{"data": ["0.9:3:3"]}]})
WRONG = (200, {"outputs": [{"data": ["0.9:4:4"]}]})
BUSY = (503, {"error": "the queue is full"})
REFUSED = (400, {"error": "the image is cut short"})


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(accuracy, "_AGAIN", 0.01)
    directory = make_digits(tmp_path / "digits")
    samples = []
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"a picture")
        samples.append(Sample(tmp_path / f"{number}.png", "3"))

    def run(*answers: Answer, patience: float = 30.0) -> float:
        with scripted(answers) as server:
            return accuracy._through_server(server, directory, MODEL, samples, patience, Event())

    return run


def test_the_share_that_is_right(measure: Any) -> None:
    assert measure(RIGHT, WRONG) == 0.5


def test_a_busy_server_is_asked_again(measure: Any) -> None:
    """Its other requests are no fault of the model on probation."""
    assert measure(BUSY, BUSY, RIGHT, BUSY, RIGHT) == 1.0
    with pytest.raises(ServerUnavailableError, match="busy: the queue is full"):
        measure(BUSY, patience=0.0)


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ((RIGHT, REFUSED), ConfigError, "samples are not usable: 1.png: the image is cut short"),
        ((REFUSED,), HealthError, "takes none of the samples: 0.png"),
        (((413, {"error": "over the limit"}),), ConfigError, "too many for the server"),
        ((RIGHT, (500, {"error": "failed"})), HealthError, "does not answer a sample: failed"),
        (((504, {"error": "late"}),), HealthError, "does not answer a sample: late"),
        (((200, {"outputs": []}),), HealthError, "malformed answer"),
    ],
)
def test_who_is_at_fault(measure: Any, answers: Any, kind: type[EdgectlError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        measure(*answers)
    assert isinstance(caught.value, HealthError) == (kind is HealthError)
