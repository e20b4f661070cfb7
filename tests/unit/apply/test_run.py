"""Apply as a whole: what is released, what is not, and what goes on after a failure."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgectl.apply.events import Events
from edgectl.apply.run import Applier, latency_limits
from edgectl.build.process import CancelledError
from edgectl.engine.host import host_architecture
from edgectl.errors import (
    GateError,
    IntegrityError,
    ModelError,
    SignatureError,
    SourceError,
    ToolchainError,
)
from edgectl.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from edgectl.plan.compare import Action, Selection, make_plan
from edgectl.plan.observe import read_applied
from edgectl.plan.observed import APPLIED_TYPE, Observed, applied_tag
from edgectl.plan.step import Step, StepKind
from edgectl.trust.tree import verify_tree
from tests.support.builders import MANIFESTS
from tests.support.dying_store import DiedError, DyingStore
from tests.support.toy import PASSWORD, ToyProject

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.apply.run import Report


REPORT = {
    "metrics": {"accuracy": 1.0},
    "samples": 1,
    "sizeBytes": 1,
    "host": {"architecture": "toy", "cpu": "toy", "engine": "toy", "providers": []},
}


@pytest.fixture
def small(toy: ToyProject) -> ToyProject:
    """One model for one target, not quantised: the fewest steps."""
    toy.model(precision="fp32")
    toy.fleet(targets=["intel-nuc"])
    return toy


def only_error(report: Report) -> Exception:
    (failure,) = report.failures
    return failure.error


def versions(report: Report) -> list[list[str]]:
    (release,) = report.releases
    return [[f"{m.name} {m.version}" for m in ring.models] for ring in release.rings]


def test_everything_is_built_signed_and_released_once(toy: ToyProject) -> None:
    report = toy.apply()
    assert not report.failures
    assert versions(report) == [["digits 1.0.0"], ["digits 1.0.0"]]
    assert [m.report["target"] for m in report.measured] == ["intel-nuc", "raspberry-pi-5"]
    for name in ("models/digits", "images/digits"):
        repository = toy.repository(name)
        tagged = repository.resolve("1.0.0")
        assert tagged is not None
        assert verify_tree(repository, tagged, toy.workspace().public_keys()).bundles
    assert not toy.plan().changed


def test_what_is_cached_is_not_built_again(toy: ToyProject) -> None:
    first = toy.apply()
    for name in ("1.0.0", applied_tag("1.0.0")):
        toy.repository().delete(name)
    second = toy.apply()
    assert (first.cached, second.ran) == (0, 1), "only the tags are put right"
    assert second.cached == first.ran - 1
    assert not second.releases, "the release says the same already"


def test_two_models_made_from_one_file_are_both_whole(toy: ToyProject) -> None:
    toy.model("twin")
    toy.fleet("digits", "twin", targets=["intel-nuc"])
    assert not toy.apply().failures
    for name in ("digits", "twin"):
        repository = toy.repository(f"models/{name}")
        tagged = repository.resolve("1.0.0")
        assert tagged is not None
        verify_tree(repository, tagged, toy.workspace().public_keys())


def test_a_failed_variant_stops_its_fleet_alone_and_is_repaired(toy: ToyProject) -> None:
    toy.fleet(name="desk", targets=["intel-nuc"])
    pi = toy.root / "targets" / "raspberry-pi-5.yaml"
    pi.parent.mkdir()
    pi.write_text(_tiny("raspberry-pi-5"))
    report = toy.apply()
    assert isinstance(only_error(report), GateError)
    assert [release.fleet for release in report.releases] == ["desk"]
    assert report.withheld == {"shop": "it needs: package digits:1.0.0 for raspberry-pi-5"}
    again = toy.plan()
    assert "not every variant passed" in again.models[0].reasons[0]
    assert isinstance(only_error(toy.apply(plan=again)), GateError)
    pi.unlink()
    repaired = toy.apply()
    assert not repaired.failures
    assert [release.fleet for release in repaired.releases] == ["desk", "shop"]
    assert not toy.plan().changed


def test_a_time_that_was_too_long_is_measured_again(small: ToyProject, tmp_path: Path) -> None:
    """Something else may have kept the machine busy; a cached time would fail for ever."""
    clock = tmp_path / "clock.json"
    architecture = host_architecture()
    target = {"amd64": "intel-nuc", "arm64": "raspberry-pi-5"}[architecture]
    small.fleet(targets=[target])
    small.model(says={"clock": str(clock), "architecture": architecture})
    clock.write_text('{"p50": 0.001, "p99": 9.0, "runs": 100, "threads": 1, "batch": 1}')
    with pytest.raises(GateError, match=r"p99 latency is 9.* s, allowed is at most"):
        small.apply().raise_failure()
    clock.write_text('{"p50": 0.001, "p99": 0.002, "runs": 100, "threads": 1, "batch": 1}')
    report = small.apply()
    assert not report.failures
    assert report.releases
    assert report.measured[0].report["latency"]["p99"] == 0.002


def test_a_model_without_evaluation_data_keeps_to_the_size_of_its_target(
    toy: ToyProject,
) -> None:
    toy.model(precision="fp32", evaluated=False)
    toy.fleet(targets=["raspberry-pi-5"])
    (toy.root / "raspberry-pi-5.yaml").write_text(_tiny("raspberry-pi-5"))
    report = toy.apply()
    with pytest.raises(GateError, match=r"model size is .* allowed is at most 10 B"):
        report.raise_failure()
    assert not report.releases


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        ({"accuracy": 0.5}, GateError, "accuracy is 0.5000, allowed is at least 0.9"),
        ({"golden": ["y is off by 3"]}, GateError, "golden data: y is off by 3"),
        ({"refuse": "import"}, ModelError, "it says so"),
        ({"report": {"metrics": {}}}, ToolchainError, "malformed evaluation: .*host"),
        ({"report": REPORT | {"metrics": {"accuracy": "good"}}}, ToolchainError, "not a number"),
    ],
)
def test_what_is_not_good_enough_is_one_clear_error(
    small: ToyProject, says: dict[str, object], error: type[Exception], words: str
) -> None:
    small.model(says=says, precision="fp32")
    report = small.apply()
    with pytest.raises(error, match=words) as caught:
        report.raise_failure()
    assert getattr(caught.value, "hint", None)
    assert not report.releases
    assert small.repository().resolve("1.0.0") is None


def test_a_version_with_other_content_goes_to_the_first_ring_and_is_said(
    small: ToyProject,
) -> None:
    first = small.apply()
    small.model(says={"accuracy": 0.99}, precision="fp32")
    plan = small.plan()
    assert plan.models[0].reasons == ("source changed",)
    second = small.apply(plan=plan)
    canary, stable = second.releases[0].rings
    assert stable.models == first.releases[0].rings[1].models
    assert canary.models[0].digest != stable.models[0].digest
    repository = small.repository()
    for ring in (canary, stable):
        found = repository.resolve(str(ring.models[0].digest))
        assert found is not None
        verify_tree(repository, found, small.workspace().public_keys())
    assert _is_referenced(small, str(stable.models[0].digest)), "a registry would collect it"


def test_the_result_of_another_step_is_not_taken_though_it_is_signed(small: ToyProject) -> None:
    """Whoever can push can point the tag of a new version's step at an old version's result."""
    small.apply()
    old = {step.kind: step for step in _steps(small, "1.0.0")}
    small.model(version="1.1.0", says={"accuracy": 0.99}, precision="fp32")
    small.fleet("digits:1.1.0", targets=["intel-nuc"])
    plan = small.plan()
    for step in plan.models[0].run:
        repository = small.repository(step.repository)
        signed = repository.resolve(old[step.kind].cache_tag) if step.kind in old else None
        if signed is not None:
            repository.tag(signed, step.cache_tag)
    report = small.apply()
    assert not report.failures
    assert report.cached == 0
    repository = small.repository()
    index = parse_manifest(repository.read_manifest("1.1.0")[1])
    assert isinstance(index, Index)
    variant = parse_manifest(repository.read_manifest(str(index.manifests[0].digest))[1])
    assert isinstance(variant, Manifest)
    weights = b"".join(repository.read_blob(variant.layers[0]))
    assert b"0.99" in weights


def test_a_cached_result_of_which_something_is_gone_is_made_again(small: ToyProject) -> None:
    small.apply()
    imported = next(s for s in _steps(small, "1.0.0") if s.kind is StepKind.IMPORT)
    record = parse_manifest(small.repository().read_manifest(imported.cache_tag)[1])
    assert isinstance(record, Manifest)
    blobs = small.root / "registry" / "models" / "digits" / "blobs" / "sha256"
    (blobs / record.layers[0].digest.hex).unlink()
    small.repository().delete("1.0.0")
    report = small.apply()
    assert not report.failures
    assert report.ran >= 1
    tagged = small.repository().resolve("1.0.0")
    assert tagged is not None
    verify_tree(small.repository(), tagged, small.workspace().public_keys())


def test_a_package_of_which_a_file_is_gone_is_made_again(small: ToyProject) -> None:
    """Once the tags that say that all is there are deleted, as the error of a check says."""
    small.apply()
    repository = small.repository()
    index = parse_manifest(repository.read_manifest("1.0.0")[1])
    assert isinstance(index, Index)
    package = parse_manifest(repository.read_manifest(str(index.manifests[-1].digest))[1])
    assert isinstance(package, Manifest)
    blobs = small.root / "registry" / "models" / "digits" / "blobs" / "sha256"
    for blob in (package.config, *package.layers):
        (blobs / blob.digest.hex).unlink()
        repository.delete(applied_tag("1.0.0"))
        assert not small.apply().failures
        tagged = repository.resolve("1.0.0")
        assert tagged is not None
        verify_tree(repository, tagged, small.workspace().public_keys())


def test_two_versions_made_from_one_file_share_what_is_made_of_it(toy: ToyProject) -> None:
    toy.model(version="1.1.0")
    for fleet, version in (("shop", "1.0.0"), ("field", "1.1.0")):
        toy.fleet(f"digits:{version}", name=fleet, targets=["intel-nuc"])
    started = []
    events = Events(on_start=lambda step: started.append(step.key))
    report = toy.apply(jobs=4, events=events)
    assert not report.failures
    assert {release.fleet for release in report.releases} == {"shop", "field"}
    assert len(started) == len(set(started))
    assert not toy.plan().changed


def test_a_release_of_one_version_does_not_vouch_for_another(small: ToyProject) -> None:
    """Whoever can push could leave a record by which a new version is the index of an old one."""
    small.apply()
    small.model(version="2.0.0", precision="fp32", says={"accuracy": 0.99})
    small.fleet("digits:2.0.0", targets=["intel-nuc"])
    (change,) = small.plan().models
    assert change.steps is not None
    models, images = small.repository(), small.repository("images/digits")
    old = read_applied(models, applied_tag("1.0.0"))
    forged = replace(old, key=change.steps.sign.key, inputs={}).to_bytes()
    config = Descriptor.of(forged, APPLIED_TYPE)
    models.push_blob(config, forged)
    record = Manifest(config, (), artifact_type=APPLIED_TYPE)
    models.push_manifest(record.to_bytes(), record.media_type, tag=applied_tag("2.0.0"))
    for repository, digest in ((models, old.index), (images, old.image)):
        found = repository.resolve(str(digest))
        assert found is not None
        repository.tag(found, "2.0.0")
    assert small.plan().models[0].action is Action.UNCHANGED
    report = small.apply()
    assert isinstance(only_error(report), SignatureError)
    assert not report.releases


def test_the_strictest_limit_of_all_targets_decides_on_a_time_of_another_run(
    toy: ToyProject,
) -> None:
    names = {"a": "50ms", "b": "10ms", "c": "500ms"}
    shipped = (MANIFESTS / "targets/intel-nuc.yaml").read_text()
    for name, latency in names.items():
        text = shipped.replace("name: intel-nuc", f"name: {name}")
        (toy.root / f"{name}.yaml").write_text(text.replace("latency: 20ms", f"latency: {latency}"))
    toy.fleet(targets=list(names))
    plan = toy.plan()
    steps = [step for change in plan.models for step in change.run]
    key = {step.uses["evaluation"] for step in steps if "evaluation" in step.uses}
    assert latency_limits(plan) == dict.fromkeys(key, 0.01)


def test_an_applied_record_that_nobody_signed_is_not_released(small: ToyProject) -> None:
    """A plan believes the record; it could name any index that was ever signed."""
    small.apply()
    repository = small.repository()
    before = repository.resolve("1.0.0")
    assert before is not None
    small.model(says={"accuracy": 0.99}, precision="fp32")
    small.apply()
    record = parse_manifest(repository.read_manifest(applied_tag("1.0.0"))[1])
    assert isinstance(record, Manifest)
    now = repository.resolve("1.0.0")
    assert now is not None
    data = b"".join(repository.read_blob(record.config))
    forged = data.replace(str(now.digest).encode(), str(before.digest).encode())
    assert forged != data
    config = type(before).of(forged, record.config.media_type)
    repository.push_blob(config, forged)
    evil = Manifest(config, (), artifact_type=record.artifact_type)
    repository.push_manifest(evil.to_bytes(), evil.media_type, tag=applied_tag("1.0.0"))
    repository.tag(before, "1.0.0")
    small.fleet(name="more", targets=["intel-nuc"])
    plan = small.plan()
    assert plan.models[0].action is Action.UNCHANGED
    report = small.apply(plan=plan)
    assert not any(release.fleet == "more" for release in report.releases)
    errors = {type(failure.error) for failure in report.failures}
    assert errors == {SignatureError}


def test_an_applied_record_that_changes_after_the_plan_is_not_released(small: ToyProject) -> None:
    small.apply()
    small.fleet(name="more", targets=["intel-nuc"])
    plan = small.plan()
    small.repository().delete(applied_tag("1.0.0"))
    assert isinstance(only_error(small.apply(plan=plan)), IntegrityError)


@pytest.mark.parametrize("what", ["golden.npz", "builders/toy/build.py"])
def test_what_changes_after_the_plan_is_refused(small: ToyProject, what: str) -> None:
    plan = small.plan()
    with (small.root / what).open("a") as file:
        file.write("# and more")
    report = small.apply(plan=plan)
    assert report.failures
    assert all(isinstance(failure.error, SourceError) for failure in report.failures)
    assert "changed while edgectl was running" in report.failures[0].error.message


def test_a_file_that_goes_after_the_plan_is_refused(small: ToyProject) -> None:
    def vanish(step: Step) -> None:
        if step.kind is StepKind.IMPORT:
            (small.root / "golden.npz").unlink()

    report = small.apply(events=Events(on_start=vanish))
    assert {type(failure.error) for failure in report.failures} == {SourceError}
    assert "golden.npz cannot be read any more" in str(report.failures[0].error)


def test_selecting_a_target_builds_it_and_tags_nothing(toy: ToyProject) -> None:
    report = toy.apply(Selection(targets=frozenset({"intel-nuc"})))
    assert not report.failures
    assert not report.releases
    assert list(report.withheld) == ["shop"]
    assert toy.repository().resolve("1.0.0") is None
    whole = toy.apply()
    assert whole.releases
    assert whole.cached == report.ran, "what was built for one target is there for all"


def test_selecting_a_fleet_releases_it_alone(toy: ToyProject) -> None:
    toy.model("tumour")
    toy.fleet("tumour", name="clinic", targets=["intel-nuc"])
    report = toy.apply(Selection(fleets=frozenset({"clinic"})))
    assert [release.fleet for release in report.releases] == ["clinic"]
    assert toy.repository("models/digits").tags() == {}


def test_a_model_that_leaves_the_fleet_leaves_the_first_ring(toy: ToyProject) -> None:
    toy.model("digits", precision="fp32")
    toy.model("tumour", precision="fp32")
    toy.fleet("digits", "tumour", targets=["intel-nuc"])
    toy.apply()
    toy.fleet("digits", targets=["intel-nuc"])
    plan = toy.plan()
    assert plan.fleets[0].reasons == ("ring canary: tumour removed",)
    assert versions(toy.apply(plan=plan)) == [
        ["digits 1.0.0"],
        ["digits 1.0.0", "tumour 1.0.0"],
    ]


def test_two_applies_at_once_end_in_one_release(small: ToyProject) -> None:
    plans = [small.plan(), small.plan()]
    reports: list[Report] = []
    threads = [
        threading.Thread(target=lambda plan=plan: reports.append(small.apply(plan=plan)))
        for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [release.generation for report in reports for release in report.releases] == [1]
    assert not small.plan().changed


def test_cancelling_leaves_no_file_behind(
    small: ToyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def stop(step: Step) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        small.apply(events=Events(on_start=stop))
    assert not list(temporary.iterdir())
    assert small.plan().changed


def _tiny(name: str) -> str:
    """A target of that name whose models may have ten bytes."""
    return (
        "apiVersion: edgectl.dev/v1alpha1\nkind: Target\n"
        f"metadata: {{name: {name}}}\nspec:\n"
        "  platform: {os: linux, architecture: arm64}\n"
        "  family: raspberry-pi\n  board: Pi\n  profile: medium\n"
        "  cpu: {model: Cortex-A76, cores: 4}\n  memory: 8Gi\n  storage: 32Gi\n"
        "  power: {typical: 5W, max: 12W}\n"
        "  engine: {name: onnxruntime, version: '>=1.20', providers: [CPUExecutionProvider]}\n"
        "  precisions: [int8, fp32]\n"
        "  quantization: {activations: uint8, weights: int8, perChannel: true}\n"
        "  constraints: {modelSize: 10B}\n"
    )


def _steps(toy: ToyProject, version: str) -> tuple[Step, ...]:
    """Every step of a version that the registry has, as if nothing were there."""
    desired = toy.workspace().desired()
    change = next(c for c in make_plan(desired, Observed()).models if c.model.version == version)
    return change.run


def _is_referenced(toy: ToyProject, digest: str) -> bool:
    """Whether something that has a tag names a manifest."""
    repository = toy.repository()
    for tag in repository.tags():
        found, data = repository.read_manifest(tag)
        parsed = parse_manifest(data)
        children = parsed.manifests if isinstance(parsed, Index) else ()
        if digest in {str(found.digest), *(str(child.digest) for child in children)}:
            return True
    return False


@pytest.mark.slow
def test_dying_after_every_single_write_it_ends_in_the_digests_of_one_run(
    small: ToyProject, tmp_path: Path
) -> None:
    deaths = 0
    while True:
        workspace = small.workspace()
        desired = workspace.desired()
        plan = make_plan(desired, workspace.observe(desired))
        dying = replace(workspace, store=DyingStore(workspace.store))
        try:
            report = Applier(dying, plan, PASSWORD.encode(), jobs=1).run()
            break
        except DiedError:
            deaths += 1
            assert deaths < 500, "it comes no further"
    assert not report.failures
    assert deaths > 20
    assert not small.plan().changed
    undisturbed = ToyProject.make(tmp_path / "undisturbed")
    undisturbed.init_trust()
    undisturbed.model(precision="fp32")
    undisturbed.fleet(targets=["intel-nuc"])
    undisturbed.apply()
    for name in ("models/digits", "images/digits"):
        ours, theirs = (each.repository(name).resolve("1.0.0") for each in (small, undisturbed))
        assert ours is not None
        assert ours == theirs
        verify_tree(small.repository(name), ours, small.workspace().public_keys())


def test_a_fault_that_several_steps_meet_is_told_once_and_first_in_the_plans_order(
    toy: ToyProject,
) -> None:
    toy.model(says={"refuse": "optimize"})
    toy.model("barcodes", says={"refuse": "import"})
    toy.fleet("digits", "barcodes")
    report = toy.apply()
    titles = [failure.step.title for failure in report.failures]
    assert titles == ["import barcodes:1.0.0", "optimize digits:1.0.0 for intel-nuc (int8)"]
    assert [each.title for each in report.failures[1].also] == [
        "optimize digits:1.0.0 for raspberry-pi-5 (int8)"
    ]
    with pytest.raises(ModelError) as caught:
        report.raise_failure()
    assert (caught.value.builder, caught.value.fault) == ("toy", "it says so")
