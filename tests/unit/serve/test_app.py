"""Whose fault a failed request is: on probation, a model answers for its own only."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.engine.errors import EngineError
from edgectl.serve import app
from edgectl.serve.app import App
from edgectl.serve.deployment import Deployment, Serving
from edgectl.serve.http import BodyReader
from edgectl.serve.model import Limits, ServedModel
from edgectl.serve.pool import InferencePool
from tests.support.slots import make_digits

if TYPE_CHECKING:
    from pathlib import Path

_TENSOR = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    model = ServedModel.load(make_digits(tmp_path / "digits"), threads=1, limits=Limits())
    return Serving({model.name: model})


def _post(serving: Serving, request: Any) -> int:
    """POST to the model, and the status of the answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(request).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        pool = InferencePool(1, 1)
        bodies = BodyReader(1 << 20, total_limit=1 << 20, seconds=60)
        scope = {"method": "POST", "raw_path": b"/v2/models/digits/infer", "headers": []}
        await App(Deployment(serving), pool, bodies, deadline=60)(scope, receive, send)
        pool.close(5)

    asyncio.run(scenario())
    return int(sent[0]["status"])


def test_a_request_that_breaks_the_parser_is_no_fault_of_the_model(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(app, "parse_request", overflow)
    assert _post(serving, {"inputs": [_TENSOR]}) == 500
    assert (serving.requests, serving.errors) == (1, 0)


def test_a_model_that_fails_is_at_fault(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EngineError("no")

    assert _post(serving, {"inputs": [_TENSOR]}) == 200
    monkeypatch.setattr(serving.models["digits"], "infer", fail)
    assert _post(serving, {"inputs": [_TENSOR]}) == 500
    assert (serving.requests, serving.errors) == (2, 1)
