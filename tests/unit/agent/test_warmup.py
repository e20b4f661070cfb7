from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from edgectl.agent.failure import InterruptedUpdateError
from edgectl.agent.probe import PACKAGES, probe
from edgectl.agent.stopping import Stopped
from edgectl.agent.warmup import UnhealthyModelError, warm_up
from edgectl.errors import ConfigError, HealthError
from tests.support.slots import make_digits


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_digits(tmp_path / "digits")


def children() -> list[int]:
    """The processes that this one has started and not yet seen end."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def signal_child(number: int, stop: Event | None = None) -> threading.Thread:
    """Send a signal to the next sub-process, after it has set `stop`, from a thread."""
    before = set(children())

    def send() -> None:
        while not (new := set(children()) - before):
            time.sleep(0.001)
        if stop is not None:
            stop.set()
        os.kill(new.pop(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def run(model: Path, stop: Event | None = None) -> None:
    warm_up("digits", model, threads=1, timeout=60, stop=stop or Event(), runs=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_warm_up_that_somebody_ends_says_nothing_about_the_model(
    model: Path, number: int
) -> None:
    """systemd, on the way down, sends SIGTERM to all processes of a service at once."""
    thread = signal_child(number)
    with pytest.raises(InterruptedUpdateError) as caught:
        run(model)
    thread.join()
    assert not isinstance(caught.value, HealthError)


def test_told_to_stop_as_its_warm_up_is_ended(model: Path) -> None:
    stop = Event()
    thread = signal_child(signal.SIGTERM, stop)
    with pytest.raises(Stopped):
        run(model, stop)
    thread.join()


def test_a_warm_up_that_dies_is_the_model_s_fault(model: Path) -> None:
    thread = signal_child(signal.SIGKILL)
    with pytest.raises(UnhealthyModelError, match="was killed by SIGKILL"):
        run(model)
    thread.join()


def test_the_terminal_s_interrupt_does_not_reach_it(model: Path) -> None:
    group = os.getpgrp()
    before = set(children())

    def look() -> None:
        nonlocal group
        while not (new := set(children()) - before):
            time.sleep(0.001)
        child = new.pop()
        while child in children():
            with suppress(ProcessLookupError):
                group = os.getpgid(child)
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    run(model)
    thread.join()
    assert group != os.getpgrp()


def test_code_in_the_working_directory_is_never_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("json", "argparse", "onnxruntime"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    run(model)
    assert probe().versions


def test_a_device_without_an_engine_blames_no_model() -> None:
    """An installation that lacks the extra must not make the device refuse the model for ever."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from threading import Event\n"
        "from edgectl.agent.warmup import warm_up\n"
        "from edgectl.errors import ConfigError\n"
        "try:\n"
        "    warm_up('digits', Path('unread'), threads=1, timeout=60, stop=Event())\n"
        "except ConfigError as error:\n"
        "    print(error, error.hint)\n"
    )
    # -S leaves out site-packages: the same as an environment that has none of the packages.
    command = [sys.executable, "-S", "-c", code]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert "numpy is not installed" in done.stdout
    assert "pip install 'edgectl[device]'" in done.stdout


def test_an_engine_that_the_extra_does_not_bring_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "litert", "no_such_engine")
    with pytest.raises(ConfigError, match="no_such_engine is not installed") as caught:
        warm_up("digits", model, threads=1, timeout=60, stop=Event(), engine="litert")
    assert caught.value.hint == "pip install no-such-engine"
