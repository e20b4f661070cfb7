"""How runs that fail end, for people and for programs."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import click
import pytest

from edgectl.cli.errors import color
from edgectl.cli.root import root
from tests.unit.cli.invoke import edgectl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `edgectl schema` fail in the way it is given."""

    def fail_with(error: BaseException) -> None:
        @click.command()
        def schema() -> None:
            raise error

        monkeypatch.setattr("edgectl.cli.schema.schema", schema)

    return fail_with


def told(stderr: str) -> dict[str, Any]:
    """The one line of JSON that stderr is, below the line that a ^C leaves on a terminal."""
    (line,) = stderr.strip().splitlines()
    value: dict[str, Any] = json.loads(line)
    assert list(value) == ["code", "message", "hint", "retry", "exitCode"]
    return value


def test_people_read_a_sentence_and_the_next_step(tmp_path: Path) -> None:
    done = edgectl("plan", "-C", tmp_path)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("Error: 1 problem in the manifests:\n")
    assert "\n  Next: " in done.stderr
    assert "\x1b" not in done.stderr, "colours are for terminals"


def test_who_asks_for_json_gets_errors_as_json(tmp_path: Path) -> None:
    done = edgectl("plan", "-C", tmp_path, "-o", "json")
    assert (done.exit_code, done.stdout) == (3, "")
    value = told(done.stderr)
    assert (value["code"], value["exitCode"], value["retry"]) == ("manifest-invalid", 3, "never")
    assert "edgectl.yaml:1:1: there is no such file" in value["message"]
    assert edgectl("plan", "-C", tmp_path).stderr.startswith("Error: "), "each run by itself"


def test_so_does_who_says_so_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_ERRORS", "json")
    assert told(edgectl("plan", "-C", tmp_path).stderr)["code"] == "manifest-invalid"
    usage = edgectl("plan", "--targt", "nuc")
    assert usage.exit_code == 64
    assert told(usage.stderr)["code"] == "usage"
    assert told(usage.stderr)["hint"] == f"see `{root.name} plan --help`"


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError(name="uvicorn"), 20, "Next: pip install 'edgectl[device]'"),
        (ValueError("seven"), 1, "this is a bug in edgectl: ValueError: seven"),
        (OSError(errno.ENOSPC, "No space left on device"), 10, "no space is left"),
        (click.FileError("x.json", "is a directory"), 64, "x.json"),
    ],
)
def test_whatever_happens_is_told_without_a_traceback(
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exit_code: int,
    sentence: str,
) -> None:
    failing(error)
    done = edgectl("schema")
    assert done.exit_code == exit_code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("EDGECTL_ERRORS", "json")
    assert told(edgectl("schema").stderr)["exitCode"] == exit_code


def test_a_bug_shows_its_traceback_to_who_looks_for_it(
    failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ValueError("seven"))
    monkeypatch.setenv("EDGECTL_DEBUG", "1")
    assert "Traceback" in edgectl("schema").stderr


def test_a_registry_password_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    done = edgectl("status", "-C", tmp_path, "--password-file", tmp_path / "password")
    assert (done.exit_code, "it is not UTF-8" in done.stderr) == (20, True)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, None),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm"}, None),
    ],
)
def test_colours_are_for_who_wants_them_and_has_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool | None
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert color() is wanted
