"""One publisher at a time, on one machine and across machines."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import BusyError, Retry, TrustError
from edgectl.oci.descriptor import OCI_MANIFEST
from edgectl.oci.layout import LayoutStore
from edgectl.trust import metadata, publishing
from edgectl.trust.publishing import exclusively
from edgectl.trust.repository import TrustRepository
from tests.support.faults import Status
from tests.support.registry import Registry
from tests.unit.trust.conftest import PASSWORD
from tests.unit.trust.releases import release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Store


def test_a_second_publisher_with_the_same_directory_is_sent_away(
    store: Store, tmp_path: Path
) -> None:
    with exclusively(store, tmp_path / "trust"):
        with pytest.raises(BusyError) as caught, exclusively(store, tmp_path / "trust"):
            pass
        assert caught.value.retry is Retry.WAIT
    with exclusively(store, tmp_path / "trust") as still_alone:
        still_alone()


def test_a_second_publisher_from_elsewhere_is_sent_away(store: Store, tmp_path: Path) -> None:
    with exclusively(store, tmp_path / "a"):
        with pytest.raises(BusyError, match="is publishing"), exclusively(store, tmp_path / "b"):
            pass
        # Giving way did not end the lease of the first.
        with pytest.raises(BusyError), exclusively(store, tmp_path / "c"):
            pass
    with exclusively(store, tmp_path / "b"):
        pass


def test_no_lease_stays_behind(store: Store, tmp_path: Path) -> None:
    with exclusively(store, tmp_path / "a"):
        pass
    assert not [t for t in store.repository(metadata.REPOSITORY).tags() if t.startswith("lease")]


def test_a_registry_that_deletes_nothing_is_no_obstacle(tmp_path: Path) -> None:
    with Registry() as registry:
        registry.inject(Status(405), method="DELETE")
        for _ in range(3):
            with exclusively(registry.store(), tmp_path / "a"):
                pass


def test_the_lease_of_a_dead_publisher_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry() as registry:
        repository = registry.store().repository(metadata.REPOSITORY)
        with exclusively(registry.store(), tmp_path / "a"):
            (tag,) = repository.tags()
            _, held = repository.read_manifest(tag)
        for until, busy in ((time.time() + 60, True), (time.time() - 60, False)):
            name = f"lease-{int(until)}-{'0' * 16}"
            repository.push_manifest(held, OCI_MANIFEST, tag=name)
            if busy:
                with pytest.raises(BusyError), exclusively(registry.store(), tmp_path / "b"):
                    pass
                repository.delete(name)
            else:
                with exclusively(registry.store(), tmp_path / "b"):
                    pass


def test_a_publisher_that_took_too_long_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry() as registry, exclusively(registry.store(), tmp_path / "a") as still_alone:
        still_alone()
        monkeypatch.setattr(publishing, "_LEASE_SECONDS", 0)
        with pytest.raises(BusyError, match="took so long"):
            still_alone()


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(
            "clock_gettime",
            marks=pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="not Linux"),
        ),
        "time",
    ],
)
def test_a_publisher_that_slept_does_not_go_on(
    clock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour in which the monotonic clock stood still."""
    with Registry() as registry, exclusively(registry.store(), tmp_path / "a") as still_alone:
        still_alone()
        real: Callable[..., float] = getattr(time, clock)

        def later(*which: int) -> float:
            return real(*which) + (0 if which == (time.CLOCK_MONOTONIC,) else 3600)

        monkeypatch.setattr(time, clock, later)
        with pytest.raises(BusyError, match="took so long"):
            still_alone()


def test_what_was_published_stands_where_the_lease_cannot_be_given_back(
    tmp_path: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Registry() as registry:
        trust = TrustRepository(registry.store(), directory, password=lambda: PASSWORD)
        trust.init()
        with exclusively(registry.store(), tmp_path / "a") as still_alone:
            still_alone()
            registry.inject(Status(403), method="PUT", path="/manifests/lease-")
        assert "was not given back" in caplog.text
        registry.heal()
        with pytest.raises(BusyError):
            trust.publish({"shop": release("shop", 1)})


def test_the_error_of_a_publisher_is_told_where_the_lease_cannot_be_given_back(
    tmp_path: Path,
) -> None:
    with Registry() as registry:

        def publish() -> None:
            with exclusively(registry.store(), tmp_path / "a"):
                registry.inject(Status(403), method="PUT", path="/manifests/lease-")
                raise TrustError("the publisher's own")

        with pytest.raises(TrustError, match="the publisher's own"):
            publish()


@pytest.mark.parametrize("kind", ["layout", "http"])
def test_publishers_at_once_lose_no_update(kind: str, tmp_path: Path, directory: Path) -> None:
    """Each has its own copy of the keys, as on its own machine, and tries until it succeeds."""
    with Registry() as registry:
        store = LayoutStore(tmp_path / "registry") if kind == "layout" else registry.store("edge")
        TrustRepository(store, directory, password=lambda: PASSWORD).init()
        fleets = [f"fleet-{number}" for number in range(3)]
        failures: list[BaseException] = []

        def publish(fleet: str) -> None:
            own = LayoutStore(tmp_path / "registry") if kind == "layout" else registry.store("edge")
            copy = shutil.copytree(directory, tmp_path / fleet)
            trust = TrustRepository(own, copy, password=lambda: PASSWORD)
            try:
                for generation in (1, 2, 3):
                    _until_published(trust, fleet, generation)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=publish, args=(fleet,)) for fleet in fleets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert failures == []
        current = TrustRepository(store, directory).current()
        assert current == {fleet: release(fleet, 3) for fleet in fleets}


def _until_published(trust: TrustRepository, fleet: str, generation: int) -> None:
    for attempt in range(400):
        try:
            trust.publish({fleet: release(fleet, generation)})
        except BusyError:
            time.sleep(0.005 * (1 + hash((fleet, attempt)) % 7))
        else:
            return
    raise AssertionError(f"{fleet} never got its turn")
