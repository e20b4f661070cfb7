"""The tutorial is typed as it stands: every file saved, every command run, in its order."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import PASSWORD, REPOSITORY

pytestmark = pytest.mark.slow

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w.]+\.yaml)`[^`]*$")
"""The file that the last sentence before a block names."""


def script(page: str, port: int) -> str:
    """The tutorial as a shell script, from the activation of the environment on."""
    lines = ["curl --version", "trap 'kill $server' EXIT"]
    for match in _BLOCK.finditer(page):
        language, body = match.groups()
        if language == "yaml":
            named = _FILE.search(page[: match.start()].rstrip())
            assert named is not None, f"which file is this?\n{body}"
            lines.append(f"cat > {named[1]} <<'END'\n{body}END")
        elif body.startswith("edgectl serve"):
            lines.append(f"{body.strip()} & server=$!")
            lines.append(f"until curl -so /dev/null http://127.0.0.1:{port}/v2; do sleep 0.1; done")
        elif language in {"", "bash"} and not body.startswith(("#", "make ")):
            lines.append(body)
    return (
        "\n".join(lines)
        .replace("8080", str(port))
        .replace(". .venv/bin/activate", f". {Path(sys.executable).with_name('activate')}")
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_it_works_as_it_is_written(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/tutorial.md").read_text(encoding="utf-8")
    cache = os.environ.get("EDGECTL_CACHE", str(Path.home() / ".cache/edgectl"))
    done = subprocess.run(
        ["bash", "-euc", script(page, free_port())],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "EDGECTL_CACHE": cache,
            "EDGECTL_KEY_PASSWORD": PASSWORD,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for told in (
        "valid (models: 1",
        "Plan: 2 to create",
        "Nothing to apply.",
        "nuc-01: updated; runs slot",
        "ring canary: digits 1.0.0 -> 1.1.0",
        "rollback to generation 1",
        "gets intel-nuc",
        "verified oci-layout:../registry\n",
    ):
        assert told in done.stdout
    answer = re.search(r'^\{"model_name".*?\}\]\}', done.stdout, re.MULTILINE)
    assert answer is not None
    scores = json.loads(answer[0])["outputs"][0]["data"]
    assert scores.index(max(scores)) == 5, "the picture of a five"
