from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import Digest
from edgectl.serve.deployment import Deployment, Serving, SlotWatcher
from edgectl.serve.model import Limits, ServedModel
from edgectl.serve.slot import model_path, slot_path, switch_link
from tests.support.slots import make_digits, make_slot

if TYPE_CHECKING:
    from pathlib import Path

_load = partial(ServedModel.load, threads=1, limits=Limits())


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


@pytest.fixture
def watcher(tmp_path: Path, deployment: Deployment) -> SlotWatcher:
    return SlotWatcher(tmp_path, deployment, _load)


def test_follows_the_link(tmp_path: Path, deployment: Deployment, watcher: SlotWatcher) -> None:
    watcher.check()
    assert deployment.status()["state"] == "empty"
    for version in ("1.0.0", "1.1.0"):
        digest = make_slot(tmp_path, version)
        watcher.check()
        assert deployment.status() | {"since": None} == {
            "slot": digest.hex,
            "state": "ready",
            "error": None,
            "wanted": digest.hex,
            "since": None,
            "requests": 0,
            "errors": 0,
        }
        assert deployment.serving is not None
        assert deployment.serving.models["digits"].version == version


def test_old_models_live_as_long_as_a_request_holds_them(
    tmp_path: Path, deployment: Deployment, watcher: SlotWatcher
) -> None:
    make_slot(tmp_path, "1.0.0")
    watcher.check()
    held = deployment.serving
    assert held is not None
    model = weakref.ref(held.models["digits"])
    make_slot(tmp_path, "1.1.0")
    watcher.check()
    gc.collect()
    assert model() is not None
    del held
    gc.collect()
    assert model() is None


def test_slot_is_refused_if_it_is_not_what_its_name_says(
    tmp_path: Path, deployment: Deployment, watcher: SlotWatcher
) -> None:
    digest = make_slot(tmp_path, "1.0.0", current=False)
    other = Digest.of(b"other")
    slot_path(tmp_path, digest).rename(slot_path(tmp_path, other))
    switch_link(tmp_path, "current", other)
    watcher.check()
    assert deployment.goal.state == "failed"
    assert "other models" in str(deployment.goal.error)


def test_slot_is_refused_if_it_holds_another_version(
    tmp_path: Path, deployment: Deployment, watcher: SlotWatcher
) -> None:
    directory = model_path(tmp_path, make_slot(tmp_path, "1.0.0"), "digits")
    directory.rename(directory.with_name("away"))
    make_digits(directory, "1.1.0")
    watcher.check()
    assert deployment.goal.state == "failed"
    assert "holds digits 1.1.0" in str(deployment.goal.error)
    assert deployment.serving is None


def test_broken_link_leaves_the_old_slot(
    tmp_path: Path, deployment: Deployment, watcher: SlotWatcher
) -> None:
    digest = make_slot(tmp_path)
    watcher.check()
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("/etc")
    watcher.check()
    status = deployment.status()
    assert (status["state"], status["slot"]) == ("failed", digest.hex)
    switch_link(tmp_path, "current", digest)
    watcher.check()
    assert deployment.status()["state"] == "ready"


def test_failed_slot_is_tried_again_only_after_a_while(
    tmp_path: Path, deployment: Deployment
) -> None:
    loads = []

    def load(path: Path, *, cache: Path | None = None) -> ServedModel:
        loads.append(path)
        return _load(path)

    watcher = SlotWatcher(tmp_path, deployment, load)
    digest = make_slot(tmp_path, "1.0.0")
    (model_path(tmp_path, digest, "digits") / "signature.json").unlink()
    for _ in range(3):
        watcher.check()
    assert len(loads) == 1
    assert deployment.goal.state == "failed"
    other = make_slot(tmp_path, "1.1.0")
    watcher.check()
    assert deployment.status()["slot"] == other.hex
    switch_link(tmp_path, "current", digest)
    watcher.check()
    assert len(loads) == 3


def test_removed_link_unloads(tmp_path: Path, deployment: Deployment, watcher: SlotWatcher) -> None:
    """A first install that failed its probation must not go on answering."""
    make_slot(tmp_path)
    watcher.check()
    assert deployment.serving is not None
    model = weakref.ref(deployment.serving.models["digits"])
    (tmp_path / "current").unlink()
    watcher.check()
    status = deployment.status()
    assert (status["state"], status["slot"], status["wanted"]) == ("empty", None, None)
    gc.collect()
    assert model() is None
    digest = make_slot(tmp_path, "1.1.0")
    watcher.check()
    assert deployment.status()["slot"] == digest.hex


def test_single_model_is_served_without_any_link(tmp_path: Path) -> None:
    model = _load(make_digits(tmp_path / "model"))
    assert Deployment(Serving({"digits": model})).status()["state"] == "ready"


def test_failure_of_one_slot_is_never_said_of_the_next(
    tmp_path: Path, deployment: Deployment
) -> None:
    """Where nothing serves yet, the agent must not take the old failure for the new slot's."""
    seen = []

    def load(path: Path, *, cache: Path | None = None) -> ServedModel:
        seen.append(deployment.status())
        return _load(path)

    watcher = SlotWatcher(tmp_path, deployment, load)
    bad = make_slot(tmp_path, "1.0.0")
    (model_path(tmp_path, bad, "digits") / "signature.json").unlink()
    watcher.check()
    assert deployment.status()["state"] == "failed"
    good = make_slot(tmp_path, "1.1.0")
    watcher.check()
    assert deployment.status()["slot"] == good.hex
    assert [(status["wanted"], status["state"], status["error"]) for status in seen] == [
        (bad.hex, "loading", None),
        (good.hex, "loading", None),
    ]


def test_model_that_breaks_its_loader_is_a_failed_slot(
    tmp_path: Path, deployment: Deployment
) -> None:
    """Whatever a model makes an engine raise, the thread that follows the link lives on."""

    def load(path: Path, *, cache: Path | None = None) -> ServedModel:
        model = _load(path)
        if model.version == "1.0.0":
            raise KeyError("from deep inside an engine")
        return model

    watcher = SlotWatcher(tmp_path, deployment, load)
    bad = make_slot(tmp_path, "1.0.0")
    watcher.check()
    status = deployment.status()
    assert (status["state"], status["wanted"]) == ("failed", bad.hex)
    good = make_slot(tmp_path, "1.1.0")
    watcher.check()
    assert deployment.status()["slot"] == good.hex
