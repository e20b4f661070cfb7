"""Runs one action of one builder in its environment: a request in, a checked result out."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgectl
from edgectl.build import toolchain
from edgectl.build.process import OverdueError, run_process
from edgectl.build.protocol import PROTOCOL, RESULT_FILE
from edgectl.errors import EdgectlError, ModelError, StorageFullError, ToolchainError
from edgectl.oci.filesystem import read_at_most
from edgectl.quantity import format_seconds

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from edgectl.build.builder import Builder

SOURCE_DATE_EPOCH = "315532800"
"""1980-01-01, the oldest time that a ZIP archive can say."""
_NO_SPACE = os.strerror(errno.ENOSPC)
_MAX_RESULT_BYTES = 4 << 20
_MAX_REASON_CHARACTERS = 1000
_MAX_OUTPUT_FILES = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """One action on one model."""

    action: str
    """`import`, `optimize`, `compile` or `evaluate`."""
    model: str
    inputs: Mapping[str, Path]
    """Files and directories by role; read only."""
    params: Mapping[str, Any]
    """JSON values."""
    output: Path
    """An empty directory, or one that is not there yet. The caller moves what it wants to keep."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an action made: files below the request's output directory, and facts about them."""

    outputs: Mapping[str, Path]
    """Files by role; those of an output that is a directory by `role/relative/path`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an action is."""

    fraction: float
    """0 to 1."""
    message: str


def run(
    builder: Builder,
    request: Request,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    timeout: float | None = None,
    cache: Path | None = None,
) -> Result:
    """Run one action to its end, which is to come within `timeout` seconds.

    Raises ModelError when the builder refuses the model; ToolchainError when the environment
    cannot be made, the builder crashes or takes longer, or what it answers is not the protocol;
    StorageFullError where it has no space to work in; CancelledError (`edgectl.build.process`) once
    `cancel` is set. No process survives the call.
    """
    notify = on_progress or _ignore
    try:
        python = toolchain.prepare(
            builder, cache=cache, on_line=lambda line: notify(Progress(0.0, line)), cancel=cancel
        )
    except ToolchainError as error:
        raise ToolchainError(
            f"model {request.model!r}: builder {builder.name!r} cannot {request.action} it: "
            f"{error.message}",
            hint=error.hint,
            fault=f"{builder.name}: {error.message}",
        ) from error
    request.output.mkdir(parents=True, exist_ok=True)
    if any(request.output.iterdir()):
        raise ToolchainError(f"the output directory {request.output} is not empty")
    with tempfile.TemporaryDirectory(prefix="edgectl-build-") as scratch:
        request_file = _write_request(Path(scratch), request)
        try:
            status, tail = run_process(
                [str(python), "-P", "-B", str(builder.script), str(request_file)],
                cwd=request.output,
                env=_environment(Path(scratch), python, builder),
                on_line=lambda line: _forward(line, notify),
                cancel=cancel,
                timeout=timeout,
            )
        except OverdueError as error:
            raise _overdue(builder, request, timeout or 0) from error
    if status != 0:
        raise _failed(builder, request, status, tail)
    result = _read_result(builder, request)
    notify(Progress(1.0, "done"))
    return result


def _failed(builder: Builder, request: Request, status: int, tail: list[str]) -> EdgectlError:
    """What to say of a builder that ended without a result."""
    what = f"builder {builder.name!r} failed on {request.action} of {request.model!r}"
    reason = _reason(status, tail)
    if _NO_SPACE in reason:
        return StorageFullError(
            f"{what}: no space is left in {request.output.parent}",
            hint="free some space, or set TMPDIR to a directory on another disk",
        )
    return ToolchainError(
        f"{what}: {reason}",
        hint="run fewer steps at a time (edgectl apply -j 1), or on a machine with more memory"
        if status == -signal.SIGKILL
        else "this is a fault of the builder or of its environment, not of the manifest: "
        "report it with the model that shows it",
    )


def _overdue(builder: Builder, request: Request, timeout: float) -> ToolchainError:
    return ToolchainError(
        f"builder {builder.name!r} did not end {request.action} of {request.model!r} within "
        f"{format_seconds(timeout)}, and was ended",
        hint="if the step needs longer here, raise spec.build.stepTimeout in edgectl.yaml; else "
        "the builder hangs on this model: report it with the model that shows it",
    )


def _write_request(scratch: Path, request: Request) -> Path:
    value = {
        "protocol": PROTOCOL,
        "action": request.action,
        "model": request.model,
        "inputs": {role: str(path.absolute()) for role, path in request.inputs.items()},
        "params": dict(request.params),
        "output": str(request.output.absolute()),
    }
    path = scratch / "request.json"
    path.write_text(json.dumps(value, sort_keys=True, allow_nan=False), encoding="utf-8")
    return path


def _environment(scratch: Path, python: Path, builder: Builder) -> dict[str, str]:
    """A clean environment: nothing of the caller's (credentials, proxies, locale) reaches a build.

    Only the package directory of edgectl is exposed, through a link: with all of site-packages the
    builder would find versions there that its lock does not name. The builder's own folder comes
    after it (`-P` keeps Python from putting it first), through a link too: PYTHONPATH cannot say a
    path with a colon in it.
    """
    library = scratch / "lib"
    library.mkdir()
    (library / "edgectl").symlink_to(Path(edgectl.__file__).parent.absolute())
    modules = scratch / "builder"
    modules.symlink_to(builder.directory)
    temporary = scratch / "tmp"
    temporary.mkdir()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        "PATH": os.pathsep.join((str(python.parent), "/usr/bin", "/bin")),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join((str(library), str(modules))),
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
        **threads,
    }


def _forward(line: str, notify: Callable[[Progress], None]) -> None:
    try:
        value = json.loads(line)
        progress = Progress(min(max(float(value["progress"]), 0.0), 1.0), str(value["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # a library printed something: progress is for people, and nothing depends on it
    notify(progress)


def _reason(status: int, tail: list[str]) -> str:
    if status < 0:
        if status == -signal.SIGKILL:
            return "killed by SIGKILL (out of memory?)"
        names = {known.value: known.name for known in signal.Signals}
        return f"crashed in native code ({names.get(-status, f'signal {-status}')})"
    lines = [line for line in tail if line.strip()]
    return lines[-1].strip()[:_MAX_REASON_CHARACTERS] if lines else f"exit status {status}"


def _read_result(builder: Builder, request: Request) -> Result:
    path = request.output / RESULT_FILE
    try:
        with path.open("rb") as file:
            data = read_at_most(file, _MAX_RESULT_BYTES + 1)
        if len(data) > _MAX_RESULT_BYTES:
            raise ValueError(f"larger than {_MAX_RESULT_BYTES} bytes")
        value = json.loads(data, parse_constant=_not_json)
        if value["protocol"] != PROTOCOL:
            raise ValueError(f"protocol {value['protocol']!r}")
        if value["status"] == "refused":
            refusal = _refusal(builder, request, value)
        else:
            return _accept(request, value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ToolchainError(
            f"builder {builder.name!r} does not keep to the protocol: {RESULT_FILE}: {error!r}",
            hint="see docs/builders.md",
        ) from error
    raise refusal


def _refusal(builder: Builder, request: Request, value: Mapping[str, Any]) -> ModelError:
    node = None if value.get("node") is None else str(value["node"])
    fault = str(value["message"]).removeprefix(f"{request.model}: ")
    if node and not re.search(rf"(?<![\w.]){re.escape(node)}(?![\w.])", fault):
        fault += f" (at {node})"
    return ModelError(
        f"model {request.model!r}: builder {builder.name!r} refuses to {request.action} it: "
        f"{fault}",
        hint=str(value["hint"]),
        fault=fault,
        builder=builder.name,
        node=node,
    )


def _accept(request: Request, value: Mapping[str, Any]) -> Result:
    if value["status"] != "ok":
        raise ValueError(f"status {value['status']!r} is neither 'ok' nor 'refused'")
    if not isinstance(value["metadata"], dict):
        raise TypeError("metadata is not an object")
    root = request.output.resolve()
    outputs: dict[str, Path] = {}
    for role, name in value["outputs"].items():
        path = root / name
        if path.is_symlink() or not path.exists() or root not in path.resolve().parents:
            raise ValueError(f"output {role!r} is no file of the output directory: {name!r}")
        if path.is_dir():
            outputs |= _files(role, path)
        else:
            outputs[role] = path
    return Result(outputs, value["metadata"])


def _files(role: str, directory: Path) -> dict[str, Path]:
    """Every file of an output that is a directory, under `role/relative/path`."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"output {role!r} holds a link: {path.name!r}")
        if path.is_file():
            found[f"{role}/{path.relative_to(directory).as_posix()}"] = path
    if not 0 < len(found) <= _MAX_OUTPUT_FILES:
        raise ValueError(f"output {role!r} is a directory of {len(found)} files")
    return found


def _not_json(name: str) -> None:
    """Python reads NaN and Infinity, which no digest could be taken of."""
    raise ValueError(f"{name} is not JSON")


def _ignore(progress: Progress) -> None:
    """Drop a progress report."""
