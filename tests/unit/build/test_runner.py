from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.build.process import CancelledError
from edgectl.build.runner import SOURCE_DATE_EPOCH, Progress, Request, Result, run
from edgectl.errors import ModelError, StorageFullError, ToolchainError
from tests.support.builders import make_builder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROTOCOL = "from edgectl.build.protocol import Done, RefusalError, main, report\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def build(tmp_path: Path, cache: Path) -> Callable[..., Result]:
    """Runs `script` as a builder's build.py."""

    def build(script: str, action: str = "import", **options: Any) -> Result:
        request = Request(action, "digits", {}, {"answer": 42}, tmp_path / "out")
        return run(make_builder(tmp_path, script), request, cache=cache, **options)

    return build


def test_a_request_goes_in_and_a_result_comes_out(
    build: Callable[..., Result], tmp_path: Path
) -> None:
    progress: list[Progress] = []
    result = build(
        PROTOCOL
        + """
def work(task):
    report(0.5, "half")
    print("noise from a library")
    open("model.onnx", "w").write(f"{task.action} {task.model} {task.params['answer']}")
    return Done({"model": "model.onnx"}, {"nodes": 3})

main({"import": work})
""",
        on_progress=progress.append,
    )
    assert result.outputs == {"model": tmp_path / "out" / "model.onnx"}
    assert result.outputs["model"].read_text() == "import digits 42"
    assert result.metadata == {"nodes": 3}
    assert progress[-2:] == [Progress(0.5, "half"), Progress(1.0, "done")]
    assert not any("noise" in report.message for report in progress)


def test_a_refusal_names_model_builder_node_and_remedy(build: Callable[..., Result]) -> None:
    with pytest.raises(ModelError) as caught:
        build(
            PROTOCOL
            + """
def work(task):
    raise RefusalError("bad", "operator Foo is unknown", hint="use Bar", node="Foo_3")

main({"import": work})
"""
        )
    for part in ("'digits'", "'toy'", "Foo_3", "operator Foo is unknown"):
        assert part in caught.value.message
    assert caught.value.hint == "use Bar"


def test_an_action_the_builder_lacks_is_refused(build: Callable[..., Result]) -> None:
    with pytest.raises(ModelError, match="no action 'optimize'"):
        build(PROTOCOL + "main({'import': print})", action="optimize")


def test_a_crash_shows_its_last_line_and_no_traceback(build: Callable[..., Result]) -> None:
    with pytest.raises(ToolchainError) as caught:
        build("raise RuntimeError('out of cheese')")
    assert "RuntimeError: out of cheese" in caught.value.message
    assert "Traceback" not in caught.value.message


def test_a_builder_that_hangs_is_ended_and_the_way_to_give_it_longer_is_said(
    build: Callable[..., Result],
) -> None:
    with pytest.raises(ToolchainError) as caught:
        build("while True: pass", timeout=0.3)
    assert caught.value.message == (
        "builder 'toy' did not end import of 'digits' within 300.0 ms, and was ended"
    )
    assert "spec.build.stepTimeout in edgectl.yaml" in str(caught.value.hint)


def test_a_full_disk_is_no_fault_of_the_builder(build: Callable[..., Result]) -> None:
    with pytest.raises(StorageFullError, match="no space is left in") as caught:
        build("raise OSError(28, 'No space left on device')")
    assert "TMPDIR" in str(caught.value.hint)


def test_a_kill_is_said(build: Callable[..., Result]) -> None:
    with pytest.raises(ToolchainError, match="killed by SIGKILL") as caught:
        build("import os; os.kill(os.getpid(), 9)")
    assert "-j 1" in str(caught.value.hint)
    with pytest.raises(ToolchainError, match=r"crashed in native code \(SIGSEGV\)"):
        build("import os; os.kill(os.getpid(), 11)")


@pytest.mark.parametrize(
    "result",
    [
        "",
        "[]",
        "{}",
        '{"protocol": 2, "status": "ok", "outputs": {}, "metadata": {}}',
        '{"protocol": 1, "status": "fine", "outputs": {}, "metadata": {}}',
        '{"protocol": 1, "status": "ok", "outputs": {}, "metadata": []}',
        '{"protocol": 1, "status": "ok", "outputs": {"model": "absent"}, "metadata": {}}',
        '{"protocol": 1, "status": "ok", "outputs": {"model": "/etc/passwd"}, "metadata": {}}',
        '{"protocol": 1, "status": "ok", "outputs": {"model": "../x"}, "metadata": {}}',
        '{"protocol": 1, "status": "refused"}',
        '{"protocol": 1, "status": "ok", "outputs": {}, "metadata": {"accuracy": NaN}}',
        "[" * 100_000,
        " " * (5 << 20),
    ],
    ids=range(13),
)
def test_a_result_that_is_not_the_protocol(
    build: Callable[..., Result], tmp_path: Path, result: str
) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "result.txt").write_text(result)
    with pytest.raises(ToolchainError, match="does not keep to the protocol"):
        build(f"import shutil; shutil.copy({str(tmp_path / 'result.txt')!r}, 'result.json')")


def test_an_output_that_is_a_link_is_refused(build: Callable[..., Result], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    result = {"protocol": 1, "status": "ok", "outputs": {"model": "m"}, "metadata": {}}
    with pytest.raises(ToolchainError, match="no file of the output directory"):
        build(
            f"import os; os.symlink({str(secret)!r}, 'm')\n"
            f"open('result.json', 'w').write({json.dumps(result)!r})"
        )


@pytest.mark.parametrize("holds", ["os.symlink('/etc/passwd', 'm/secret')", "pass"])
def test_a_directory_with_a_link_or_with_nothing_is_refused(
    build: Callable[..., Result], holds: str
) -> None:
    with pytest.raises(ToolchainError, match="does not keep to the protocol"):
        build(
            PROTOCOL
            + f"""
import os

def work(task):
    os.mkdir("m")
    {holds}
    return Done({{"model": "m"}})

main({{"import": work}})
"""
        )


def test_a_directory_is_its_files_by_role(build: Callable[..., Result], tmp_path: Path) -> None:
    result = build(
        PROTOCOL
        + """
import os

def work(task):
    os.makedirs("m/below")
    open("m/model.xml", "w").write("x")
    open("m/below/model.bin", "w").write("b")
    return Done({"model": "m"})

main({"import": work})
"""
    )
    assert result.outputs == {
        "model/model.xml": tmp_path / "out/m/model.xml",
        "model/below/model.bin": tmp_path / "out/m/below/model.bin",
    }


def test_no_result_at_all(build: Callable[..., Result]) -> None:
    with pytest.raises(ToolchainError, match=r"result\.json"):
        build("pass")


def test_the_environment_is_clean(
    build: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    result = build(
        PROTOCOL
        + """
import importlib.util, os, stat

def work(task):
    import edgectl.engine.signature
    return Done({}, {
        "env": dict(os.environ),
        "yaml": importlib.util.find_spec("yaml") is not None,
        "files": os.listdir(),
        "stdin": stat.S_ISCHR(os.fstat(0).st_mode),
    })

main({"import": work})
"""
    )
    env = result.metadata["env"]
    assert "REGISTRY_PASSWORD" not in env
    assert env["PYTHONHASHSEED"] == "0"
    assert env["SOURCE_DATE_EPOCH"] == SOURCE_DATE_EPOCH
    assert env["OMP_NUM_THREADS"] == "1"
    assert not result.metadata["yaml"], "edgectl's own site-packages leak into the builder"
    assert result.metadata["files"] == []
    assert result.metadata["stdin"], "a library could read the pipe that says that edgectl lives"


def test_modules_of_the_folder_are_imported_after_edgectl(
    build: Callable[..., Result], tmp_path: Path
) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "answering.py").write_text("ANSWER = 42\n")
    (folder / "edgectl.py").write_text("raise RuntimeError('not the real one')\n")
    result = build(
        PROTOCOL
        + """
from answering import ANSWER

main({"import": lambda task: Done({}, {"answer": ANSWER})})
"""
    )
    assert result.metadata == {"answer": 42}
    assert not (folder / "__pycache__").exists(), "a build writes into the builder's folder"


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a:b" / "toy").mkdir(parents=True)
    (tmp_path / "a:b" / "toy" / "answering.py").write_text("ANSWER = 42\n")
    script = "from answering import ANSWER\nmain({'import': lambda _: Done({}, {'a': ANSWER})})\n"
    builder = make_builder(tmp_path / "a:b", PROTOCOL + script)
    request = Request("import", "digits", {}, {}, tmp_path / "out")
    assert run(builder, request, cache=cache).metadata == {"a": 42}


def test_cancelling_stops_the_build(build: Callable[..., Result]) -> None:
    cancel = threading.Event()
    with pytest.raises(CancelledError):
        build(
            PROTOCOL
            + """
import time

def work(task):
    report(0.1, "working")
    time.sleep(600)

main({"import": work})
""",
            cancel=cancel,
            on_progress=lambda progress: cancel.set() if progress.message == "working" else None,
        )


def test_an_output_directory_with_something_in_it_is_refused(
    build: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    with pytest.raises(ToolchainError, match="not empty"):
        build("pass")
