"""Processes of the agent's own: their lines, their ends, and that none outlives its limit."""

from __future__ import annotations

import os
import signal
import sys
from threading import Event, Timer
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.child import TookTooLongError, run_child
from edgectl.agent.stopping import Stopped
from edgectl.errors import EdgectlError, Retry

if TYPE_CHECKING:
    from pathlib import Path


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_come_as_they_are_written() -> None:
    lines: list[bytes] = []
    code = "import sys\nfor n in range(3): print(n, flush=True)\nsys.stderr.write('well')\nexit(3)"
    done = run_child(python(code), timeout=60, stop=Event(), on_line=lines.append)
    assert lines == [b"0", b"1", b"2"]
    assert (done.output, done.errors, done.code) == (b"0\n1\n2\n", "well", 3)
    assert done.ending == "ended with exit code 3"


def test_more_output_than_a_pipe_holds_is_taken_and_bounded() -> None:
    code = "import sys\nsys.stderr.write('e' * 300_000)\nprint('x' * 3_000_000)\nprint('last')"
    done = run_child(python(code), timeout=60, stop=Event())
    assert done.output.endswith(b"x\nlast\n")
    assert len(done.output) == 1 << 20
    assert done.errors == "e" * 500


def test_a_signal_is_named() -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    done = run_child(python(code), timeout=60, stop=Event())
    assert (done.code, done.ending) == (-signal.SIGKILL, "was killed by SIGKILL")


def test_a_system_that_starts_no_process_may_do_so_later(tmp_path: Path) -> None:
    """As where memory is short; the agent lives on and blames no model."""
    with pytest.raises(EdgectlError, match="cannot start another process") as caught:
        run_child([str(tmp_path / "gone")], timeout=60, stop=Event())
    assert caught.value.retry is Retry.BACKOFF
    assert caught.value.hint


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SLEEP = "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)"
QUIET = SLEEP.replace("time.sleep", "os.close(1); os.close(2); time.sleep")


@pytest.mark.parametrize("code", [SLEEP, QUIET], ids=["with open pipes", "with closed pipes"])
def test_what_takes_too_long_is_killed(tmp_path: Path, code: str) -> None:
    file = tmp_path / "pid"
    with pytest.raises(TookTooLongError):
        run_child([*python(code), str(file)], timeout=1, stop=Event())
    assert not is_running(int(file.read_text()))


def test_a_stop_ends_it(tmp_path: Path) -> None:
    stop = Event()
    Timer(0.5, stop.set).start()
    with pytest.raises(Stopped):
        run_child([*python(SLEEP), str(tmp_path / "pid")], timeout=600, stop=stop)
