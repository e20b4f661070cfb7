from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgectl.build.process import (
    MAX_LINE_BYTES,
    STDERR_TAIL_LINES,
    CancelledError,
    OverdueError,
    run_process,
)
from tests.support.builders import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ENV = {"PATH": os.environ["PATH"]}


def run(script: str, cwd: Path) -> tuple[int, list[str], list[str]]:
    lines: list[str] = []
    command = [sys.executable, "-c", script]
    status, tail = run_process(command, cwd=cwd, env=ENV, on_line=lines.append)
    return status, lines, tail


def test_lines_arrive_one_by_one_with_the_exit_status(tmp_path: Path) -> None:
    script = "import sys; print('one'); print('two', end=''); sys.exit(3)"
    assert run(script, tmp_path) == (3, ["one", "two"], [])


def test_only_the_end_of_stderr_is_kept(tmp_path: Path) -> None:
    _, _, tail = run("import sys\nfor i in range(500): print(i, file=sys.stderr)", tmp_path)
    assert tail == [str(i) for i in range(500 - STDERR_TAIL_LINES, 500)]


def test_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    length = 3 * MAX_LINE_BYTES
    _, lines, _ = run(f"print('x' * {length})", tmp_path)
    assert sum(map(len, lines)) == length
    assert max(map(len, lines)) <= MAX_LINE_BYTES + (16 << 10)


def test_output_that_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    _, lines, _ = run(r"import os; os.write(1, b'\xff\n')", tmp_path)
    assert lines == ["\ufffd"]


def test_cancelling_kills_the_process_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    cancel = threading.Event()
    with pytest.raises(CancelledError):
        run_process(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=ENV,
            on_line=lambda _: cancel.set(),
            cancel=cancel,
        )
    for pid in map(int, pids.read_text().split()):
        assert _ends(pid)


def test_a_child_that_outlives_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "null = subprocess.DEVNULL\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " stdout=null, stderr=null)\n"
        "print(child.pid)\n"
    )
    status, lines, _ = run(script, tmp_path)
    assert status == 0
    assert _ends(int(lines[0]))


def test_a_builder_and_its_children_end_when_edgectl_is_killed(tmp_path: Path) -> None:
    """A real SIGKILL: no handler runs, and only the kernel closes the pipe."""
    builder = (
        "import os, subprocess, sys, time\n"
        "from edgectl.build.protocol import main, report\n"
        "def work(task):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    report(0.5, f'{os.getpid()} {child.pid}')\n"
        "    time.sleep(600)\n"
        "main({'import': work})\n"
    )
    request = {"protocol": 1, "action": "import", "model": "m", "inputs": {}, "params": {}}
    (tmp_path / "build.py").write_text(builder)
    (tmp_path / "request.json").write_text(json.dumps(request))
    caller = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgectl.build.process import run_process\n"
        "show = lambda line: print(line, flush=True)\n"
        "command = [sys.executable, 'build.py', 'request.json']\n"
        "run_process(command, cwd=Path('.'), env={'PYTHONPATH': sys.argv[1]}, on_line=show)\n"
    )
    environment = ENV | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", caller, str(REPOSITORY)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as edgectl:
        assert edgectl.stdout is not None
        pids = json.loads(edgectl.stdout.readline())["message"].split()
        edgectl.kill()
    assert len(pids) == 2
    assert all(_ends(int(pid)) for pid in pids)


def test_a_lock_outlives_a_killed_edgectl_with_the_command_that_writes(tmp_path: Path) -> None:
    """uv reads no stdin: it ends its work, and nobody else may write where it does meanwhile."""
    caller = (
        "import fcntl, sys\n"
        "from pathlib import Path\n"
        "from edgectl.build.process import run_process\n"
        "show = lambda line: print(line, flush=True)\n"
        "lock = open('lock', 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "command = ['/bin/sh', '-c', 'echo $$; exec sleep 600']\n"
        "run_process(command, cwd=Path('.'), env={}, on_line=show, keep=[lock.fileno()])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", caller],
        cwd=tmp_path,
        env=ENV | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    ) as edgectl:
        assert edgectl.stdout is not None
        pid = int(edgectl.stdout.readline())
        edgectl.kill()
    with (tmp_path / "lock").open("w") as lock:
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.kill(pid, signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_builder_run_by_hand_needs_no_pipe(tmp_path: Path) -> None:
    script = "from edgectl.build.protocol import Done, main\nmain({'import': lambda _: Done({})})\n"
    request = {"protocol": 1, "action": "import", "model": "m", "inputs": {}, "params": {}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-c", script, "request.json"]
    environment = ENV | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, check=True)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "ok"


def _ends(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody waits for, within a few seconds."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - /proc is not a tree of files
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_child_that_holds_the_pipes_keeps_nobody_waiting(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)\n"
        "print('the last words', file=sys.stderr)\n"
    )
    status, lines, tail = run(script, tmp_path)
    assert (status, tail) == (0, ["the last words"])
    assert _ends(int(lines[0]))


def test_a_process_without_pipes_is_cancelled_too(tmp_path: Path) -> None:
    script = (
        "import os, time\nprint(os.getpid(), flush=True)\nos.close(1)\nos.close(2)\ntime.sleep(600)"
    )
    cancel = threading.Event()
    pids: list[int] = []

    def started(line: str) -> None:
        pids.append(int(line))
        threading.Timer(0.3, cancel.set).start()

    with pytest.raises(CancelledError):
        run_process(
            [sys.executable, "-c", script], cwd=tmp_path, env=ENV, on_line=started, cancel=cancel
        )
    assert _ends(pids[0])


def test_a_process_that_takes_too_long_is_killed_with_its_group(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    pids: list[int] = []
    with pytest.raises(OverdueError):
        run_process(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=ENV,
            on_line=lambda line: pids.append(int(line)),
            timeout=0.5,
        )
    assert _ends(pids[0])
