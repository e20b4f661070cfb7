"""Pages of the documentation that tests type as they stand: every file saved, every command run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.project import PASSWORD, REPOSITORY

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.(?:yaml|in|py))`[^`]*$")
"""The file that the last sentence before a block names."""
_SAVED = {"yaml", "python", "text"}
_FAILS = re.compile(r"^(edgectl .*?) +# exits with (\d+).*$", re.MULTILINE)
"""A command that is to fail, with its exit code."""


def script(page: str, port: int = 0) -> str:
    """The page as a shell script, from the activation of the environment on.

    A block of YAML, Python or text is saved where the sentence before it names a file; other text
    is what a command shows. A server is waited for and ended, on `port` in place of 8080.
    """
    lines = [f". {Path(sys.executable).with_name('activate')}"]
    if "edgectl serve" in page:
        lines += ["curl --version", "trap 'kill $server' EXIT"]
    for match in _BLOCK.finditer(page):
        language, body = match.groups()
        named = _FILE.search(page[: match.start()].rstrip())
        if language in _SAVED and named is not None:
            lines.append(f"mkdir -p $(dirname {named[1]})")
            lines.append(f"cat > {named[1]} <<'END'\n{body}END")
        elif language in _SAVED:
            assert language == "text", f"which file is this?\n{body}"
        elif body.startswith("edgectl serve"):
            lines.append(f"{body.strip()} & server=$!")
            lines.append(f"until curl -so /dev/null http://127.0.0.1:{port}/v2; do sleep 0.1; done")
        elif language in {"", "bash"} and not body.startswith(("#", "make ")):
            body = body.replace(". .venv/bin/activate\n", "")
            lines.append(_FAILS.sub(r"\1 && exit 1 || test $? = \2", body))
    return "\n".join(lines).replace("8080", str(port))


def type_page(name: str, home: Path, *, port: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a page below docs/ in a home of its own, with the toolchains and wheels of this user."""
    cache = Path.home() / ".cache"
    done = subprocess.run(
        ["bash", "-euc", script((REPOSITORY / "docs" / name).read_text(encoding="utf-8"), port)],
        cwd=REPOSITORY,
        env={
            "EDGECTL_CACHE": str(cache / "edgectl"),
            "UV_CACHE_DIR": str(cache / "uv"),
            **os.environ,
            "HOME": str(home),
            "EDGECTL_KEY_PASSWORD": PASSWORD,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done
