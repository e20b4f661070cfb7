"""Rollout: which ring runs what next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.errors import ConfigError
from edgectl.plan.rollout import advance, assign, lagging, resume, rollback
from edgectl.trust.release import FleetRelease, ModelRef, Selector
from tests.support.desired import digest, fleet


def ref(version: str, name: str = "digits") -> ModelRef:
    return ModelRef(name, version, f"models/{name}", digest(name + version))


def first(
    *models: ModelRef, rings: tuple[str, ...] = ("canary", "early", "stable")
) -> FleetRelease:
    assignment = assign(fleet(rings=rings), models, None)
    return FleetRelease("shop", 1, Selector(), assignment.rings)


def update(release: FleetRelease, *models: ModelRef) -> FleetRelease:
    names = tuple(ring.name for ring in release.rings)
    assignment = assign(fleet(rings=names), models, release)
    return replace(release, generation=release.generation + 1, rings=assignment.rings)


def versions(release: FleetRelease) -> list[str]:
    return [" ".join(model.version for model in ring.models) for ring in release.rings]


def test_a_first_release_goes_to_every_ring() -> None:
    assert versions(first(ref("1.0.0"))) == ["1.0.0"] * 3


def test_a_new_version_goes_to_the_first_ring_alone_and_advances_ring_by_ring() -> None:
    release = update(first(ref("1.0.0")), ref("1.1.0"))
    assert versions(release) == ["1.1.0", "1.0.0", "1.0.0"]
    release = advance(release)
    assert versions(release) == ["1.1.0", "1.1.0", "1.0.0"]
    release = advance(release)
    assert versions(release) == ["1.1.0"] * 3
    assert release.generation == 4
    assert lagging(release) is None


def test_advance_can_take_every_ring_at_once() -> None:
    assert versions(advance(update(first(ref("1")), ref("2")), everything=True)) == ["2"] * 3


def test_advance_with_nothing_to_do_says_so() -> None:
    with pytest.raises(ConfigError, match="nothing to advance"):
        advance(first(ref("1")))


def test_a_version_in_between_does_not_overtake() -> None:
    release = advance(update(first(ref("1")), ref("2")))
    assert versions(update(release, ref("3"))) == ["3", "2", "1"]


def test_rollback_goes_to_the_newest_other_generation_and_holds_what_it_left() -> None:
    one = first(ref("1"))
    two = update(one, ref("2"))
    back = rollback(two, [one, two])
    assert versions(back) == ["1", "1", "1"]
    assert back.generation == 3
    assert [(held.model, held.version) for held in back.held] == [("digits", "2")]
    again = assign(fleet(rings=("canary", "early", "stable")), [ref("2")], back)
    assert [m.version for m in again.rings[0].models] == ["1"]
    assert again.held_back == (ref("2"),)


def test_a_model_that_was_new_when_it_was_rolled_back_stays_away() -> None:
    """There is nothing that the ring ran in its place: it goes on without the model."""
    one = first(ref("1"))
    two = update(one, ref("1"), ref("1", "tumour"))
    back = rollback(two, [one, two])
    assert versions(back) == ["1", "1", "1"]
    again = assign(fleet(rings=("canary", "early", "stable")), two.rings[0].models, back)
    assert again.rings == back.rings
    assert again.held_back == (ref("1", "tumour"),)


def test_a_model_that_was_replaced_by_one_that_is_held_goes_on() -> None:
    one = first(ref("1", "old"))
    two = update(one, ref("1", "new"))
    back = rollback(two, [one, two])
    again = assign(fleet(rings=("canary", "early", "stable")), [ref("1", "new")], back)
    assert again.rings == back.rings == one.rings


def test_the_order_of_models_in_a_manifest_is_no_change() -> None:
    one = first(ref("1", "a"), ref("1", "b"))
    assert (
        assign(
            fleet(rings=("canary", "early", "stable")), [ref("1", "b"), ref("1", "a")], one
        ).rings
        == one.rings
    )


def test_a_rollback_after_a_rollback_goes_on_back() -> None:
    """Never to what the one before left: whoever repeats it in an emergency makes nothing worse."""
    history = [first(ref("1"))]
    for move in (lambda r: update(r, ref("2")), advance, advance):
        history.append(move(history[-1]))
    assert versions(history[-1]) == ["2", "2", "2"]
    for expected in (["2", "2", "1"], ["2", "1", "1"], ["1", "1", "1"]):
        history.append(rollback(history[-1], history))
        assert versions(history[-1]) == expected
    with pytest.raises(ConfigError, match="no earlier generation that ran other models"):
        rollback(history[-1], history)


def test_a_ring_that_got_another_name_is_no_generation_to_go_back_to() -> None:
    one = first(ref("1"), rings=("canary", "stable"))
    two = update(one, ref("2"))
    renamed = assign(fleet(rings=("canary", "rest")), [ref("2")], two)
    three = replace(two, generation=3, rings=renamed.rings)
    back = rollback(three, [one, two, three])
    assert versions(back) == ["1", "1"]
    assert back.reason == "rollback to generation 1"


def test_resume_lets_a_held_version_go_again() -> None:
    one = first(ref("1"))
    two = update(one, ref("2"))
    resumed = resume(rollback(two, [one, two]))
    assert versions(update(resumed, ref("2"))) == ["2", "1", "1"]
    with pytest.raises(ConfigError, match="nothing is held"):
        resume(resumed)


def test_rollback_to_a_held_version_releases_the_hold() -> None:
    one = first(ref("1"))
    two = advance(update(one, ref("2")), everything=True)
    back = rollback(two, [one, two])
    forward = rollback(back, [one, two, back], to=two.generation)
    assert versions(forward) == ["2"] * 3
    assert [held.version for held in forward.held] == ["1"]


def test_rollback_to_a_generation_that_is_not_there_names_those_that_are() -> None:
    one = first(ref("1"))
    with pytest.raises(ConfigError, match="no earlier generation 7") as caught:
        rollback(update(one, ref("2")), [one], to=7)
    assert "1" in (caught.value.hint or "")


def test_a_ring_that_is_new_starts_with_what_the_last_ring_runs() -> None:
    release = update(first(ref("1"), rings=("canary", "stable")), ref("2"))
    assignment = assign(fleet(rings=("canary", "early", "stable")), [ref("2")], release)
    assert [ring.models[0].version for ring in assignment.rings] == ["2", "1", "1"]


@given(st.lists(st.sampled_from(["release", "advance", "rollback"]), max_size=12))
def test_generations_only_grow_and_no_ring_is_ever_empty(moves: list[str]) -> None:
    release = first(ref("0"))
    history = [release]
    for count, move in enumerate(moves, start=1):
        try:
            if move == "release":
                release = update(release, ref(str(count)))
            elif move == "advance":
                release = advance(release)
            else:
                release = rollback(release, history)
        except ConfigError:
            continue
        assert release.generation == history[-1].generation + 1
        assert all(ring.models for ring in release.rings)
        assert not {m.digest for ring in release.rings for m in ring.models} & {
            held.digest for held in release.held
        }
        history.append(release)
        assert FleetRelease.from_bytes(release.to_bytes()) == release
