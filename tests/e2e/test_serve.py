"""The life of a real `edgectl serve`: starting, slots that come, fail and go, overload, the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgectl.serve.slot import model_path, switch_link
from tests.support.burner import make_burner
from tests.support.server import Server, running
from tests.support.slots import make_digits, make_slot

_EDGECTL = str(Path(sys.executable).with_name("edgectl"))
_REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "inference.md"
_DIGITS = {
    "inputs": [
        {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64},
    ]
}


def _infer(server: Server, model: str, request: Any) -> tuple[int, Any, dict[str, str]]:
    with closing(server.connect(60)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(request))
        response = connection.getresponse()
        return response.status, json.loads(response.read()), dict(response.getheaders())


def _burn(server: Server, rounds: int, **parameters: Any) -> tuple[int, Any, dict[str, str]]:
    tensor = {"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}
    return _infer(server, "burner", {"inputs": [tensor], "parameters": parameters})


class _Burning(threading.Thread):
    """A request that computes in the background."""

    def __init__(self, server: Server, rounds: int) -> None:
        super().__init__()
        self._call = (server, rounds)
        self.status = 0

    def run(self) -> None:
        self.status, _, _ = _burn(*self._call)


def _start_burning(server: Server, count: int, rounds: int) -> list[_Burning]:
    threads = [_Burning(server, rounds) for _ in range(count)]
    for thread in threads:
        thread.start()
    while f"edgectl_infer_pending {count}\n" not in _metrics(server):
        pass
    return threads


def _metrics(server: Server) -> str:
    with closing(server.connect()) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def test_live_before_there_is_a_slot_and_ready_when_it_comes(tmp_path: Path) -> None:
    with running("--state", str(tmp_path)) as server:
        assert server.get("/v2/health/live") == (200, {"live": True})
        assert server.get("/v2/health/ready") == (400, {"ready": False})
        _, status = server.get("/edgectl/v1/slot")
        assert (status["state"], status["slot"], status["wanted"]) == ("empty", None, None)
        code, answer, headers = _infer(server, "digits", _DIGITS)
        assert (code, headers["retry-after"]) == (503, "1")
        assert "no model" in answer["error"]

        digest = make_slot(tmp_path)
        status = server.wait_slot(lambda status: status["state"] == "ready")
        assert status["slot"] == status["wanted"] == digest.hex
        assert server.get("/v2/health/ready") == (200, {"ready": True})
        assert _infer(server, "digits", _DIGITS)[0] == 200
        _, status = server.get("/edgectl/v1/slot")
        assert (status["requests"], status["errors"]) == (1, 0)


def test_slot_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path) -> None:
    good = make_slot(tmp_path, "1.0.0")
    bad = make_slot(tmp_path, "1.1.0", current=False)
    model = model_path(tmp_path, bad, "digits") / "model.onnx"
    model.write_bytes(model.read_bytes()[:20_000])
    with running("--state", str(tmp_path)) as server:
        server.wait_ready()
        switch_link(tmp_path, "current", bad)
        status = server.wait_slot(lambda status: status["state"] == "failed")
        assert (status["slot"], status["wanted"]) == (good.hex, bad.hex)
        assert "model.onnx" in status["error"]
        assert _infer(server, "digits", _DIGITS)[1]["model_version"] == "1.0.0"
        assert server.get("/v2/health/ready")[0] == 200

        switch_link(tmp_path, "current", good)
        status = server.wait_slot(lambda status: status["state"] == "ready")
        assert (status["slot"], status["error"]) == (good.hex, None)


def test_pinned_slot_is_not_left(tmp_path: Path) -> None:
    pinned = make_slot(tmp_path, "1.0.0", current=False)
    make_slot(tmp_path, "1.1.0")
    with running("--state", str(tmp_path), "--slot", pinned.hex) as server:
        server.wait_ready()
        assert server.get("/edgectl/v1/slot")[1]["slot"] == pinned.hex
        assert server.get("/v2/models/digits")[1]["versions"] == ["1.0.0"]


def test_full_queue_refuses_and_health_answers(tmp_path: Path) -> None:
    model = make_burner(tmp_path / "burner")
    with running("--model", str(model), "--queue", "1") as server:
        burning = _start_burning(server, 2, 2000)
        assert server.get("/v2/health/live")[0] == 200
        code, answer, headers = _burn(server, 1)
        assert (code, headers["retry-after"]) == (503, "1")
        assert "queue" in answer["error"]
        for thread in burning:
            thread.join()
        assert [thread.status for thread in burning] == [200, 200]
        assert _burn(server, 1)[0] == 200
        # The crowd's doing: on probation it must not condemn the model.
        status = server.get("/edgectl/v1/slot")[1]
        assert (status["requests"], status["errors"]) == (4, 0)


def test_request_gets_the_time_that_it_asks_for(tmp_path: Path) -> None:
    model = make_burner(tmp_path / "burner")
    with running("--model", str(model)) as server:
        code, answer, _ = _burn(server, 2000, timeout=1000)
        assert code == 504
        assert "0.001 seconds" in answer["error"]
        # The client's choice: on probation it must not condemn the model.
        status = server.get("/edgectl/v1/slot")[1]
        assert (status["requests"], status["errors"]) == (1, 0)


def test_termination_lets_accepted_requests_finish(tmp_path: Path) -> None:
    model = make_burner(tmp_path / "burner")
    with running("--model", str(model)) as server:
        burning = _start_burning(server, 2, 2000)
        server.process.send_signal(signal.SIGTERM)
        for thread in burning:
            thread.join()
        assert [thread.status for thread in burning] == [200, 200]


def test_termination_waits_for_what_nobody_waits_for(tmp_path: Path) -> None:
    model = make_burner(tmp_path / "burner")
    with running("--model", str(model)) as server:
        assert _burn(server, 5000, timeout=1000)[0] == 504
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


_LINE = re.compile(r'([a-zA-Z_:][\w:]*)(\{(?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)')


def test_metrics_are_in_prometheus_format(tmp_path: Path) -> None:
    make_slot(tmp_path)
    with running("--state", str(tmp_path)) as server:
        server.wait_ready()
        assert _infer(server, "digits", _DIGITS)[0] == 200
        assert _infer(server, "digits", {})[0] == 400
        page = _metrics(server)
    samples = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            match = _LINE.fullmatch(line)
            assert match, line
            samples[match[1] + (match[2] or "")] = float(match[3])
    model = 'model="digits",version="1.0.0"'
    assert samples[f'edgectl_infer_requests_total{{{model},code="200"}}'] == 1
    assert samples[f'edgectl_infer_requests_total{{{model},code="400"}}'] == 1
    buckets = [value for name, value in samples.items() if "request_seconds_bucket" in name]
    assert buckets == sorted(buckets)
    assert buckets[-1] == samples[f"edgectl_infer_request_seconds_count{{{model}}}"] == 1
    assert samples["process_resident_memory_bytes"] > 1e7
    for family in set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)):
        assert page.count(f"# HELP {family} ") == page.count(f"# TYPE {family} ") == 1
        assert f"| `{family}` |" in _REFERENCE.read_text()


def _fails(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_EDGECTL, "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_model_that_does_not_load_is_one_clear_error(tmp_path: Path) -> None:
    done = _fails("--model", str(tmp_path), "--port", "0")
    assert done.returncode == 17
    assert "signature" in done.stderr
    assert "Next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with running("--model", str(make_digits(tmp_path / "m"))) as server:
        done = _fails("--state", str(tmp_path), "--port", server.address.split(":")[1])
    assert done.returncode == 20
    assert "cannot listen" in done.stderr


def test_a_pinned_slot_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    done = _fails("--state", str(tmp_path), "--slot", "0" * 64)
    assert done.returncode == 20
    assert "holds no slot 0000" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--state", "a", "--model", "b"],
        ["--model", "a", "--slot", "0" * 64],
        ["--state", "a", "--slot", "x"],
        ["--state", "a", "--max-body", "lots"],
        ["--state", "a", "--max-body", "0"],
        ["--state", "a", "--deadline", "0s"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert _fails(*arguments).returncode == 64
