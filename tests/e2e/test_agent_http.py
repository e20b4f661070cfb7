"""The agent against a registry over HTTP: what it asks, and what it makes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from edgectl.agent.report import status
from edgectl.errors import NotFoundError, RegistryUnavailableError
from tests.support.faults import Drop, Status
from tests.support.fleet import Fleet, ModelOptions
from tests.support.polling import poll, refused, serving
from tests.support.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path


def test_an_idle_poll_is_one_head(tmp_path: Path) -> None:
    with Registry() as registry:
        fleet = Fleet(tmp_path, registry.store())
        config = fleet.config()
        fleet.release(fleet.publish_model())
        poll(config)
        registry.requests.clear()
        assert poll(config).result == "up-to-date"
        (request,) = registry.requests
        assert request.method == "HEAD"
        assert request.path.endswith("/trust/manifests/timestamp")


def test_a_withheld_blob_is_waited_for(tmp_path: Path) -> None:
    with Registry() as registry:
        fleet = Fleet(tmp_path, registry.store())
        config = fleet.config()
        fleet.release(fleet.publish_model())
        poll(config)
        fleet.release(fleet.publish_model(version="2.0.0"))
        registry.inject(Status(404), method="GET", path="/models/brightness/blobs/")
        for attempt in (1, 2):
            assert isinstance(refused(config), NotFoundError)
            assert status(config)["attempts"] == attempt
        assert serving(config) == "1.0.0"
        assert status(config)["failed"] == []
        registry.heal()
        assert poll(config).result == "updated"
        assert status(config)["attempts"] == 0


def test_retry_after_is_kept_to(tmp_path: Path) -> None:
    with Registry() as registry:
        fleet = Fleet(tmp_path, registry.store())
        config = fleet.config()
        fleet.release(fleet.publish_model())
        registry.inject(Status(429, retry_after=300), path="/trust/")
        error = refused(config)
        assert isinstance(error, RegistryUnavailableError)
        wait = datetime.fromisoformat(status(config)["nextAttempt"]) - datetime.now(UTC)
        assert timedelta(seconds=290) < wait < timedelta(seconds=380)


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with Registry() as registry:
        fleet = Fleet(tmp_path, registry.store())
        config = fleet.config()
        fleet.release(fleet.publish_model(options=ModelOptions(padding=3 << 20)))
        registry.inject(Drop(2 << 20), method="GET", path="/models/brightness/blobs/")
        error = refused(config)
        assert isinstance(error, RegistryUnavailableError)
        registry.heal()
        assert poll(config).result == "updated"
        ranges = [request.headers.get("Range") for request in registry.requests]
        assert any(value and value != "bytes=0-" for value in ranges)
