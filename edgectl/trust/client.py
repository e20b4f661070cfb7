"""The device's side of releases: python-tuf's client over the registry.

Every rule of the TUF specification (signatures, thresholds, versions, expiry, consistency, sizes)
is python-tuf's; this gives it bytes and names its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Timestamp
from tuf.ngclient import Updater

from edgectl.errors import NotFoundError, TrustError
from edgectl.oci.filesystem import storage_errors
from edgectl.trust import metadata
from edgectl.trust.fetcher import METADATA_URL, TARGETS_URL, RegistryFetcher
from edgectl.trust.release import MAX_RELEASE_BYTES, FleetRelease

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import TargetFile

    from edgectl.digest import Digest
    from edgectl.oci.store import Store


class TrustClient:
    """Reads the newest release that the shipped root makes trustworthy.

    `state_dir` keeps the metadata seen last, which is what a rollback is recognised by; if it is
    lost or damaged, the client starts from `root`, the bytes of a TUF root file, again. Expiry is
    judged by the system clock.
    """

    def __init__(self, store: Store, state_dir: Path, root: bytes) -> None:
        self._repository = store.repository(metadata.REPOSITORY)
        self._directory = state_dir
        self._root = root
        self._fetcher = RegistryFetcher(self._repository)
        self._updater: Updater | None = None

    def head(self) -> Digest | None:
        """What changes when a release does, with one HEAD; None if there is no release yet."""
        found = self._repository.resolve(metadata.TIMESTAMP_TAG)
        return None if found is None else found.digest

    def refresh(self) -> None:
        """Read and verify the newest metadata.

        Raises ExpiredTrustError if it is genuine but too old, TrustError if it is refused for any
        other reason, NotFoundError if there is none or a part is missing, and the registry's
        errors and StorageError as they are. After any of them the metadata seen last stands.
        """
        self._updater = self._refreshed()

    def release(self, fleet: str) -> FleetRelease:
        """The release of a fleet in the metadata that `refresh` verified, which runs if need be.

        Raises NotFoundError if the fleet has none, and what `refresh` raises.
        """
        if self._updater is None:
            self._updater = self._refreshed()
        updater = self._updater
        target = updater.get_targetinfo(metadata.target_path(fleet))
        if target is None:
            raise NotFoundError(
                f"there is no release of a fleet {fleet!r}",
                hint="is the fleet's name right in the device configuration?",
            )
        release = FleetRelease.from_bytes(self._document(updater, target))
        if release.fleet != fleet:
            raise TrustError(f"the release of fleet {fleet!r} is one of {release.fleet!r}")
        return release

    def expires(self) -> datetime | None:
        """Until when the metadata seen last is fresh, from the local copy; None if there is none.

        Asks nobody: this is how a device whose polls find nothing new learns that it is `stale`.
        """
        try:
            data = (self._directory / "timestamp.json").read_bytes()
            return Metadata[Timestamp].from_bytes(data).signed.expires
        except (OSError, RepositoryError):
            return None

    def _refreshed(self) -> Updater:
        with storage_errors(f"keeping release metadata in {self._directory}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            updater = self._bootstrap()
            with metadata.tuf_errors():
                updater.refresh()
        return updater

    def _bootstrap(self) -> Updater:
        try:
            return Updater(
                metadata_dir=str(self._directory),
                metadata_base_url=METADATA_URL,
                target_base_url=TARGETS_URL,
                fetcher=self._fetcher,
                bootstrap=self._root,
            )
        except RepositoryError as error:
            raise TrustError(
                f"the TUF root of this device is not usable: {error}",
                hint="give it the root.json that `edgectl trust init` wrote",
            ) from error

    def _document(self, updater: Updater, target: TargetFile) -> bytes:
        if target.length > MAX_RELEASE_BYTES:
            raise TrustError(f"{target.path} is over {MAX_RELEASE_BYTES} bytes")
        document = metadata.document(target)
        self._fetcher.expect(document)
        path = self._directory / f"release-{document.digest.hex}.json"
        with storage_errors(f"keeping a release in {self._directory}"), metadata.tuf_errors():
            if updater.find_cached_target(target, str(path)) is None:
                updater.download_target(target, str(path))
            for older in self._directory.glob("release-*.json"):
                if older != path:
                    older.unlink(missing_ok=True)
            return path.read_bytes()
