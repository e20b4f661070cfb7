"""The plan: what is created, updated, left alone, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgectl.desired import DesiredVariant
from edgectl.errors import IntegrityError, ManifestError
from edgectl.plan.chain import model_steps
from edgectl.plan.compare import Action, Plan, Selection, make_plan, model_ref
from edgectl.plan.fingerprint import EDGECTL
from edgectl.plan.observed import PARTIAL, Applied, Observed, ObservedModel
from edgectl.plan.rollout import assign
from edgectl.plan.step import REVISION, StepKind
from edgectl.trust.release import FleetRelease, Selector
from tests.support.desired import (
    ONNX,
    SKLEARN,
    TFLM,
    desired,
    digest,
    fleet,
    model,
    pinned,
    target,
)

if TYPE_CHECKING:
    from edgectl.desired import Desired, DesiredModel


def applied(of: Desired, which: DesiredModel) -> ObservedModel:
    """The registry as an undisturbed apply leaves it."""
    steps = model_steps(which, of)
    record = Applied(
        steps.sign.key,
        digest(f"index {which.key}"),
        digest(f"image {which.key}"),
        {v.target.name: digest(v.target.name) for v in which.variants},
        steps.sign.params["inputs"],
    )
    return ObservedModel(Applied.from_bytes(record.to_bytes()), record.index, record.image)


def after_apply(of: Desired) -> Observed:
    """Everything applied and released."""
    models = {m.key: applied(of, m) for m in of.models}
    refs = {m.key: model_ref(m, digest(f"index {m.key}")) for m in of.models}
    releases = {
        f.name: FleetRelease(
            f.name, 1, Selector(), assign(f, [refs[key] for key in f.models], None).rings
        )
        for f in of.fleets
    }
    return Observed(models, releases)


def only(plan: Plan) -> tuple[Action, tuple[str, ...]]:
    (change,) = plan.models
    return change.action, change.reasons


def test_an_empty_registry_gets_everything() -> None:
    plan = make_plan(desired(), Observed())
    assert only(plan) == (Action.CREATE, ("not in the registry",))
    assert [change.action for change in plan.fleets] == [Action.CREATE]
    kinds = [step.kind for step in plan.models[0].run]
    assert kinds == [
        StepKind.IMPORT, StepKind.EVALUATE, StepKind.OPTIMIZE, StepKind.EVALUATE,
        StepKind.PACKAGE, StepKind.INDEX, StepKind.IMAGE, StepKind.ATTEST, StepKind.SIGN,
    ]  # fmt: skip


def test_nothing_to_do_after_an_apply() -> None:
    plan = make_plan(desired(), after_apply(desired()))
    assert not plan.changed
    assert plan.models[0].run == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": pinned("other")}, "source changed"),
        ({"calibration": pinned("other")}, "calibration data changed"),
        ({"evaluation": pinned("other")}, "evaluation data changed"),
        ({"golden": pinned("other")}, "golden data changed"),
        ({"gates": {"accuracy": {"min": 0.99}}}, "gates changed"),
        ({"calibration_params": {"method": "entropy"}}, "calibration settings changed"),
        ({"golden_tolerance": {"absolute": 0.1}}, "golden tolerance changed"),
        ({"description": "new words"}, "description changed"),
        ({"task": "regression"}, "description changed"),
        ({"license": "MIT"}, "description changed"),
        ({"inputs": (replace(model().inputs[0], transforms=({"layout": "NCHW"},)),)},
         "signature changed"),
    ],
)  # fmt: skip
def test_each_input_of_a_model_is_a_reason_to_update(change: dict[str, Any], reason: str) -> None:
    before = after_apply(desired())
    assert only(make_plan(desired(model(**change)), before)) == (Action.UPDATE, (reason,))


@pytest.mark.parametrize(
    "change",
    [
        {"engine_version": ">=1.30"},
        {"quantization": {"activations": "int8", "weights": "int8"}},
        {"limits": {"latency": 0.5}},
        {"cores": 2},
        {"providers": ("CUDAExecutionProvider",)},
        {"cpu_features": ("avx2",)},
        {"accelerators": ("gpu",)},
        {"family": "server"},
    ],
)
def test_each_part_of_a_target_is_a_reason_to_update(change: dict[str, Any]) -> None:
    before = after_apply(desired())
    variant = replace(model().variants[0], target=target(**change))
    plan = make_plan(desired(model(variants=(variant,))), before)
    assert only(plan) == (Action.UPDATE, ("target intel-nuc changed",))


def test_a_new_builder_and_a_new_signer_are_reasons() -> None:
    before = after_apply(desired())
    newer = replace(desired(), builders=(replace(ONNX, digest=digest("newer")), SKLEARN))
    assert only(make_plan(newer, before)) == (Action.UPDATE, ("the onnx builder changed",))
    unused = replace(desired(), builders=(ONNX, replace(SKLEARN, digest=digest("newer"))))
    assert not make_plan(unused, before).changed
    signed = replace(desired(), signers=("other",))
    assert only(make_plan(signed, before)) == (Action.UPDATE, ("signing keys changed",))


def test_a_newer_edgectl_is_a_reason_where_the_model_takes_such_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = after_apply(desired())
    monkeypatch.setitem(REVISION, StepKind.COMPILE, 99)
    assert not make_plan(desired(), before).changed
    monkeypatch.setitem(REVISION, StepKind.PACKAGE, 99)
    assert only(make_plan(desired(), before)) == (Action.UPDATE, ("edgectl itself changed",))


def test_a_record_of_an_older_edgectl_says_what_changed_beside_it() -> None:
    before = after_apply(desired())
    record = before.models[model().key].applied
    assert record is not None
    inputs = {name: value for name, value in record.inputs.items() if name != EDGECTL}
    old = replace(record, key="0", inputs={**inputs, "builder onnx": "0", "gates": "0"})
    seen = Observed({model().key: ObservedModel(old, record.index, record.image)})
    assert only(make_plan(desired(), seen))[1] == ("gates changed", "edgectl itself changed")


def test_a_version_that_lacks_a_variant_says_so() -> None:
    before = after_apply(desired())
    record = before.models[model().key].applied
    assert record is not None
    partial = replace(record, key=f"{PARTIAL}{record.key}")
    seen = Observed({model().key: ObservedModel(partial, record.index, record.image)})
    assert only(make_plan(desired(), seen))[1] == ("not every variant passed in the apply before",)


def test_a_builder_that_could_and_does_not_take_part_changes_nothing() -> None:
    """Another builder for the format hides it: only the first on the search path is used."""
    before = after_apply(desired())
    also = replace(ONNX, name="also", digest=digest("also"))
    assert not make_plan(replace(desired(), builders=(ONNX, SKLEARN, also)), before).changed


def test_models_made_from_the_same_files_share_no_step() -> None:
    """A step's result is a blob of one repository: the other model's would lack it."""
    one = model_steps(model("digits"), desired()).steps
    twin = model("twin", source=model("digits").source, calibration=model("digits").calibration)
    two = model_steps(replace(twin, evaluation=None, gates={}), desired()).steps
    assert not {step.key for step in one} & {step.key for step in two}


def test_a_target_that_is_added_says_so() -> None:
    before = after_apply(desired())
    more = desired(model("digits", "1.0.0", "intel-nuc", "pi"))
    assert only(make_plan(more, before)) == (Action.UPDATE, ("target pi added",))


def test_a_tag_that_was_moved_is_drift() -> None:
    before = after_apply(desired())
    key = model().key
    moved = replace(before.models[key], index=digest("something else"))
    plan = make_plan(desired(), Observed({key: moved}, before.releases))
    assert only(plan)[0] is Action.UPDATE
    assert "moved" in only(plan)[1][0]


def test_a_cached_step_is_known() -> None:
    step = model_steps(model(), desired()).imported
    assert step is not None
    plan = make_plan(
        desired(), Observed({model().key: ObservedModel(cached=frozenset({step.key}))})
    )
    assert plan.models[0].cached == {step.key}


def test_two_targets_with_the_same_quantisation_share_one_optimize_step() -> None:
    steps = model_steps(model("digits", "1.0.0", "a", "b"), desired()).steps
    assert [step.kind for step in steps].count(StepKind.OPTIMIZE) == 1
    assert [step.kind for step in steps].count(StepKind.PACKAGE) == 2


@pytest.mark.parametrize("precision", ["fp32", "source", "int8"])
def test_every_variant_is_held_against_its_engines_version(precision: str) -> None:
    variant = replace(model().variants[0], precision=precision)
    steps = model_steps(model(variants=(variant,)), desired()).steps
    (optimize,) = [step for step in steps if step.kind is StepKind.OPTIMIZE]
    assert optimize.params["engineVersion"] == variant.target.engine_version


def test_a_new_version_updates_the_first_ring_of_the_release() -> None:
    before = after_apply(desired())
    newer = model("digits", "1.1.0")
    of = desired(newer)
    seen = Observed({newer.key: applied(of, newer)}, before.releases)
    (change,) = make_plan(of, seen).fleets
    assert change.action is Action.UPDATE
    assert change.reasons == ("ring canary: digits 1.0.0 -> 1.1.0",)


def test_a_ring_whose_settings_change_is_released_anew() -> None:
    before = after_apply(desired())
    base = fleet()
    soak = replace(base.rings[0].soak, duration=60.0)
    changed = replace(base, rings=(replace(base.rings[0], soak=soak), base.rings[1]))
    (change,) = make_plan(desired(fleets=(changed,)), before).fleets
    assert change.reasons == ("ring canary: settings changed",)


def test_selecting_a_target_builds_it_and_releases_nothing() -> None:
    of = desired(model("digits", "1.0.0", "a", "b"), fleets=(fleet(targets=("a", "b")),))
    plan = make_plan(of, Observed(), Selection(targets=frozenset({"a"})))
    assert {step.target for step in plan.models[0].run if step.kind is StepKind.PACKAGE} == {"a"}
    assert StepKind.INDEX not in {step.kind for step in plan.models[0].run}
    (waiting,) = plan.fleets
    assert waiting.action is Action.BLOCKED
    assert waiting.reasons[1] == "to release it, select it whole: --fleet shop"


def test_selecting_a_target_that_is_compiled_for_compiles() -> None:
    variants = tuple(DesiredVariant(target(name, engine="tflm"), "int8") for name in ("a", "b"))
    board = model(variants=variants)
    tools = (replace(ONNX, engines=(*ONNX.engines, "litert")), TFLM)
    of = replace(desired(board, fleets=(fleet(targets=("a", "b")),)), builders=tools)
    steps = make_plan(of, Observed(), Selection(targets=frozenset({"a"}))).models[0].run
    assert [step.kind for step in steps].count(StepKind.COMPILE) == 1
    keys = {step.key for step in steps}
    assert all(keys.issuperset(step.uses.values()) for step in steps)


def test_what_an_index_says_is_in_its_key() -> None:
    """Its overviews carry the time that all files of an image have."""
    keys = {
        model_steps(model(), replace(desired(), source_date_epoch=epoch)).index.key
        for epoch in (0, 1_700_000_000)
    }
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "\ud800", "a\nb"])
def test_a_record_with_names_that_cannot_be_shown_is_malformed(name: str) -> None:
    """Nobody has to have signed what a plan reads, and a plan is shown on a terminal."""
    record = after_apply(desired()).models[model().key].applied
    assert record is not None
    said = json.loads(record.to_bytes())
    said["inputs"] = {name: "x"}
    with pytest.raises(IntegrityError, match="malformed applied record"):
        Applied.from_bytes(json.dumps(said).encode())


def test_what_is_selected_and_built_is_no_change_though_its_fleet_waits() -> None:
    of = desired(model("digits", "1.0.0", "a", "b"), fleets=(fleet(targets=("a", "b")),))
    chosen = Selection(targets=frozenset({"a"}))
    built = frozenset(step.key for step in make_plan(of, Observed(), chosen).models[0].run)
    plan = make_plan(of, Observed({model().key: ObservedModel(cached=built)}), chosen)
    assert not plan.changed
    assert only(plan) == (Action.UNCHANGED, ("built for a, and not for all yet",))
    (waiting,) = plan.fleets
    assert waiting.action is Action.UNCHANGED
    assert waiting.reasons == (
        "the selection leaves out other targets of digits:1.0.0, and fleets are released whole",
    )


def test_selecting_every_target_of_a_model_releases_it() -> None:
    plan = make_plan(desired(), Observed(), Selection(targets=frozenset({"intel-nuc"})))
    assert [change.action for change in plan.fleets] == [Action.CREATE]
    assert StepKind.INDEX in {step.kind for step in plan.models[0].run}


def test_a_model_that_is_not_for_a_selected_target_is_left_out() -> None:
    of = desired(model("digits", "1.0.0", "a"), model("tumour", "1.0.0", "b"))
    plan = make_plan(of, Observed(), Selection(targets=frozenset({"b"})))
    assert [change.model.name for change in plan.models] == ["tumour"]


def test_selecting_a_model_leaves_fleets_that_need_others_alone() -> None:
    of = desired(model("digits"), model("tumour"))
    plan = make_plan(of, Observed(), Selection(models=frozenset({"digits"})))
    assert [change.model.name for change in plan.models] == ["digits"]
    assert [change.action for change in plan.fleets] == [Action.BLOCKED]


def test_selecting_a_fleet_leaves_the_models_of_others_alone() -> None:
    fleets = (fleet(("digits", "1.0.0"), name="a"), fleet(("tumour", "1.0.0"), name="b"))
    of = desired(model("digits"), model("tumour"), fleets=fleets)
    plan = make_plan(of, Observed(), Selection(fleets=frozenset({"a"})))
    assert [change.model.name for change in plan.models] == ["digits"]
    assert [change.fleet.name for change in plan.fleets] == ["a"]


@pytest.mark.parametrize("kind", ["models", "targets", "fleets"])
def test_selecting_what_is_not_there_is_an_error_with_a_suggestion(kind: str) -> None:
    names = {"models": "digit", "targets": "intel-nux", "fleets": "shopp"}
    with pytest.raises(ManifestError) as caught:
        make_plan(desired(), Observed(), Selection(**{kind: frozenset({names[kind]})}))
    assert "did you mean" in (caught.value.hint or "")


@pytest.mark.parametrize("change", [{"source_format": "coreml"}, {"engine": "tflm"}])
def test_what_no_builder_takes_is_refused_with_what_can_be_built(change: dict[str, str]) -> None:
    if "engine" in change:
        which = model(variants=(replace(model().variants[0], target=target(**change)),))
    else:
        which = model(**change)
    with pytest.raises(ManifestError, match="no builder") as caught:
        make_plan(desired(which), Observed())
    assert "onnx" in (caught.value.hint or "")


def test_keys_depend_on_what_a_step_is_made_from_and_on_nothing_else() -> None:
    one = {s.title: s.key for s in model_steps(model(), desired()).steps}
    again = {s.title: s.key for s in model_steps(model(), desired()).steps}
    assert one == again
    moved = replace(pinned("digits-1.0.0.onnx"), path=None)
    assert {s.title: s.key for s in model_steps(model(source=moved), desired()).steps} == one
    other = {s.title: s.key for s in model_steps(model(source=pinned("x")), desired()).steps}
    assert not set(one.values()) & set(other.values())


def test_a_version_that_is_built_first_shows_what_its_release_changes() -> None:
    before = after_apply(desired())
    (change,) = make_plan(desired(model("digits", "1.1.0")), before).fleets
    assert change.reasons == (
        "ring canary: digits 1.0.0 -> 1.1.0",
        "digits:1.1.0 is built first",
    )
    (rebuilt,) = make_plan(desired(model(source=pinned("other"))), before).fleets
    assert rebuilt.reasons == (
        "ring canary: digits 1.0.0 built anew",
        "digits:1.0.0 is built first",
    )
