"""What every builder must do, whoever wrote it: the requests of a plan, and checks of the answers.

A `Chain` is one model of a project on its way to one target, step by step as an apply would run it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import edgectl
from edgectl.apply.workspace import Workspace
from edgectl.build import toolchain
from edgectl.build.builder import Builder, find_builder
from edgectl.build.process import CancelledError
from edgectl.build.protocol import PROTOCOL, RESULT_FILE
from edgectl.build.runner import Progress, Request, Result, run
from edgectl.errors import ModelError
from edgectl.oci.access import Access
from edgectl.plan.chain import model_steps
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate
from tests.support.builders import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.desired import DesiredModel
    from edgectl.plan.step import Step

_END_SECONDS = 10
_PROJECT = """\
apiVersion: edgectl.dev/v1alpha1
kind: Project
metadata: {name: conformance}
spec: {registry: "oci-layout:registry"}
"""
_FLEET = """\
---
apiVersion: edgectl.dev/v1alpha1
kind: Fleet
metadata: {name: %s}
spec: {targets: [%s], models: [{name: %s}], rings: [{name: stable}]}
"""


def make_project(root: Path, wanted: Mapping[str, Sequence[str]]) -> Path:
    """A project with copies of shipped models, each wanted on some targets."""
    fleets = [_FLEET % (name, ", ".join(targets), name) for name, targets in wanted.items()]
    (root / "edgectl.yaml").write_text(_PROJECT + "".join(fleets))
    for part in ("keys", "models"):
        (root / part).mkdir()
    write_key_pair(root / "keys" / "cosign", generate(), b"conformance")
    for name in wanted:
        manifest = MANIFESTS / "models" / f"{name}.yaml"
        shutil.copy(manifest, root / "models")
        source = yaml.safe_load(manifest.read_bytes())["spec"]["source"]["path"]
        copy = shutil.copytree if (MANIFESTS / "models" / source).is_dir() else shutil.copy
        copy(MANIFESTS / "models" / source, root / "models" / source)
        shutil.copytree(MANIFESTS / "data" / name, root / "data" / name)
    return root


@dataclass
class Chain:
    """One model on its way to one target; each step runs once, its result is kept."""

    root: Path
    """Of the project."""
    model: DesiredModel
    steps: tuple[Step, ...]
    """Import, optimize and compile, as far as there are such steps."""
    evaluation: Step
    work: Path
    """An empty directory."""
    results: dict[str, Result] = field(default_factory=dict)
    progress: dict[str, list[Progress]] = field(default_factory=dict)
    """What each step said, by its key."""

    @classmethod
    def of(cls, root: Path, name: str, target: str, work: Path) -> Chain:
        """The chain of a model that a fleet of the project wants on a target."""
        desired = Workspace.open(root, Access()).desired()
        (model,) = (each for each in desired.models if each.name == name)
        (variant,) = (
            each for each in model_steps(model, desired).variants if each.target == target
        )
        assert variant.evaluate is not None
        return cls(root, model, variant.built, variant.evaluate, work)

    def builder(self, step: Step) -> Builder:
        """The builder that runs a step."""
        assert step.builder is not None
        return find_builder(step.builder.name, repository=self.root)

    def request(self, step: Step, name: str = "output") -> Request:
        """The step's request, with an output directory of that name; the steps before are run."""
        inputs = {role: path for role, file in step.files.items() if (path := file.path)}
        for role, key in step.uses.items():
            (before,) = (each for each in self.steps if each.key == key)
            inputs[role] = made(self.result(before), role)
        params = {**step.params, "latency": False} if step is self.evaluation else step.params
        output = self.work / f"{step.kind}-{name}"
        return Request(str(step.kind), ":".join(self.model.key), inputs, dict(params), output)

    def result(self, step: Step) -> Result:
        """What a step gives."""
        if step.key not in self.results:
            said = self.progress[step.key] = list[Progress]()
            result = run(self.builder(step), self.request(step), on_progress=said.append)
            self.results[step.key] = result
        return self.results[step.key]


def made(result: Result, role: str = "model") -> Path:
    """What a result has for a role: a file, or the directory that its files are in."""
    if role in result.outputs:
        return result.outputs[role]
    name, path = next((n, p) for n, p in result.outputs.items() if n.startswith(f"{role}/"))
    return path.parents[name.count("/") - 1]


def contents(result: Result) -> dict[str, bytes]:
    """Every file of a result, by its role."""
    return {name: path.read_bytes() for name, path in result.outputs.items()}


def check_progress(said: list[Progress]) -> None:
    """From 0 to 1 and never back, each time with a message that says what is done now."""
    fractions = [each.fraction for each in said]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert fractions[0] < 1
    assert len(set(fractions)) >= 3, "who waits wants to see that it goes on"
    assert all(each.message.strip() for each in said)


def check_same_elsewhere(builder: Builder, request: Request, result: Result, work: Path) -> None:
    """The builder, started by hand as its protocol says, gives the same bytes and facts.

    Everything that must not matter is another: directories (with a space in their names), the order
    of Python's sets, the time, the locale, and the folder that the builder is in.
    """
    folder = work / "a builder"
    library = work / "some lib"
    output = work / "an output"
    folder.symlink_to(builder.directory)
    for directory in (library, output, work / "a home"):
        directory.mkdir()
    (library / "edgectl").symlink_to(Path(edgectl.__file__).parent)
    inputs = {role: str(path.absolute()) for role, path in request.inputs.items()}
    values = {"protocol": PROTOCOL, "action": request.action, "model": request.model}
    (work / "request.json").write_text(
        json.dumps(values | {"inputs": inputs, "params": request.params})
    )
    done = subprocess.run(
        [toolchain.prepare(builder), "-P", "-B", folder / "build.py", work / "request.json"],
        cwd=output,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(work / "a home"),
            "TMPDIR": str(work / "a home"),
            "PYTHONPATH": os.pathsep.join((str(library), str(folder))),
            "PYTHONHASHSEED": "4711",
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "TZ": "Asia/Kathmandu",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads((output / RESULT_FILE).read_text())
    assert answer["status"] == "ok", answer
    assert answer["metadata"] == result.metadata
    again = {}
    for role, name in answer["outputs"].items():
        path = output / name
        for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
            below = "" if file == path else f"/{file.relative_to(path).as_posix()}"
            again[f"{role}{below}"] = file.read_bytes()
    first = contents(result)
    assert again.keys() == first.keys()
    assert [name for name in first if again[name] != first[name]] == []
    for name, content in first.items():
        for place in (request.output, folder, library, toolchain.cache_directory()):
            assert str(place).encode() not in content, f"{name} says where it was made"


def check_cancelled(builder: Builder, request: Request, outside: Path) -> None:
    """Cancelled at its first report, a build ends at once: nothing runs on or counts as made."""
    cancel = threading.Event()
    try:
        run(builder, request, on_progress=lambda _: cancel.set(), cancel=cancel)
    except CancelledError:
        pass
    else:
        raise AssertionError("it ran to its end")
    assert not (request.output / RESULT_FILE).exists()
    end = time.monotonic() + _END_SECONDS
    while left := _processes_in(request.output):  # the kernel ends them after the call returns
        assert time.monotonic() < end, f"still running: {left}"
        time.sleep(0.05)
    assert not list(outside.iterdir()), "it wrote outside of its output directory"


def _processes_in(directory: Path) -> list[int]:
    """Processes that work in a directory: a builder, and all that it started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile, or is a kernel's
            continue
    return found


def refusal(
    builder: Builder,
    request: Request,
    *,
    inputs: Mapping[str, Path] | None = None,
    params: Mapping[str, Any] | None = None,
) -> ModelError:
    """What the builder says to the request with other inputs or params, which it must refuse."""
    changed = replace(
        request,
        inputs={**request.inputs, **(inputs or {})},
        params={**request.params, **(params or {})},
    )
    try:
        run(builder, changed)
    except ModelError as error:
        check_wording(builder, changed, error)
        return error
    raise AssertionError(f"{builder.name} took it")


def check_wording(builder: Builder, request: Request, error: ModelError) -> None:
    """One refusal for people: which model, which builder, why, and what to do next."""
    start = f"model {request.model!r}: builder {builder.name!r} refuses to {request.action} it: "
    assert error.message.startswith(start)
    reason = error.message.removeprefix(start)
    assert len(reason.split()) >= 4, "a reason is a sentence"
    assert "\n" not in reason
    assert "Traceback" not in reason
    assert len((error.hint or "").split()) >= 3, "a hint says what to do"
    for place in (request.output, toolchain.cache_directory()):
        assert str(place) not in reason


def truncated(source: Path, directory: Path) -> Path:
    """A copy of a model that ends in its middle: the file, or the largest of a directory's."""
    target = directory / source.name
    if source.is_dir():
        for file in filter(Path.is_file, source.rglob("*")):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        largest = max(filter(Path.is_file, target.rglob("*")), key=lambda file: file.stat().st_size)
    else:
        target.write_bytes(source.read_bytes())
        largest = target
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) // 2])
    return target
