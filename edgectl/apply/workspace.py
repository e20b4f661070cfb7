"""A project opened for work: its manifests, its registry, its releases and its keys."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from edgectl.build.builder import find_builders, source_formats
from edgectl.build.card import find_template
from edgectl.desired import PinnedFile
from edgectl.digest import Digest
from edgectl.errors import ConfigError, KeyFileError, TrustError
from edgectl.expand import expand
from edgectl.manifest.data import check_data
from edgectl.manifest.load import load_project, load_project_file
from edgectl.manifest.problem import suggest
from edgectl.oci.access import open_store
from edgectl.oci.tar import source_date_epoch
from edgectl.plan.backends import taking_part
from edgectl.plan.compare import make_plan
from edgectl.plan.observe import observe
from edgectl.trust.keys import load_private, load_public
from edgectl.trust.policy import Expiry
from edgectl.trust.repository import TrustRepository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from edgectl.build.builder import Builder
    from edgectl.desired import Desired
    from edgectl.manifest.collection import ManifestSet
    from edgectl.manifest.project import Signing
    from edgectl.oci.access import Access
    from edgectl.oci.store import Store
    from edgectl.plan.compare import Plan, Selection
    from edgectl.plan.observed import Observed
    from edgectl.trust.keyring import Password
    from edgectl.trust.keys import PrivateKey, PublicKey
    from edgectl.trust.release import FleetRelease


@dataclass(frozen=True, slots=True)
class Workspace:
    """Everything that the verbs on a project share. Opening it makes no request."""

    root: Path
    builders: tuple[Builder, ...]
    manifests: ManifestSet
    store: Store
    access: Access

    @classmethod
    def open(cls, root: Path, access: Access) -> Self:
        """Read the manifests below `root`; raises ManifestErrors with everything wrong in them."""
        with _nothing_to_collect():
            builders = find_builders(repository=root)
            manifests = load_project(root, source_formats(builders))
        store = open_store(manifests.project.registry, access)
        return cls(root, builders, manifests, store, access)

    @classmethod
    def of_releases(cls, root: Path, access: Access) -> Self:
        """Read `edgectl.yaml` alone, for what is about releases: a wrong manifest must not keep a
        fleet from being rolled back, nor its metadata from being refreshed.

        Raises ManifestErrors with everything wrong in that file.
        """
        manifests = load_project_file(root)
        return cls(root, (), manifests, open_store(manifests.project.registry, access), access)

    def desired(self) -> Desired:
        """What the manifests ask for, with every file hashed, and every builder that takes part."""
        signers = tuple(sorted(key.fingerprint for key in self.public_keys()))
        template = find_template(self.root)
        desired = expand(
            self.manifests,
            self.builders,
            signers,
            model_card=PinnedFile(Digest.of_file(template), template),
            source_date_epoch=source_date_epoch(),
        )
        using = taking_part(self.builders, desired.models)
        for builder in self.builders:
            if builder.name in using:
                builder.pin()
        return desired

    def plan(self, selection: Selection | None = None) -> Plan:
        """What apply would do. Raises ManifestErrors also where the data of a model that is to be
        built is not what the model declares; of what is built already, it was."""
        with _nothing_to_collect():
            desired = self.desired()
            plan = make_plan(desired, self.observe(desired), selection)
            built = (change.model.key for change in plan.models if change.run)
            check_data(self.manifests.models[key] for key in built)
        return plan

    def observe(self, desired: Desired) -> Observed:
        """What the registry says of it."""
        return observe(self.store, desired.models, self.releases())

    def releases(self) -> dict[str, FleetRelease]:
        """Fleet to its current release; empty where nothing was ever released.

        Raises TrustError where the registry's release metadata is not what the root of trust here
        vouches for.
        """
        trust = self.release_repository()
        return trust.current() if trust.exists() else {}

    def expires(self) -> datetime | None:
        """When devices begin to call the release metadata stale; None before the first release."""
        trust = self.release_repository()
        return min(role.expires for role in trust.status()) if trust.exists() else None

    def release(self, fleet: str) -> FleetRelease:
        """The current release of one fleet; raises ConfigError if it has none."""
        releases = self.releases()
        if fleet not in releases:
            raise ConfigError(
                f"fleet {fleet!r} has no release",
                hint=suggest(fleet, releases)
                or "edgectl apply releases the fleets of the manifests",
            )
        return releases[fleet]

    def history(self, fleet: str) -> list[FleetRelease]:
        """Every release of one fleet, the oldest first; raises ConfigError if it has none."""
        self.release(fleet)
        return [release for _, release in self.release_repository().history(fleet)]

    def publish(self, release: FleetRelease, password: bytes) -> None:
        """Sign and publish a release."""
        self.trust(password).publish({release.fleet: release})

    def release_repository(self, password: Password | None = None) -> TrustRepository:
        """The release repository; `password` is asked for when a private key is first needed."""
        spec = self.manifests.project.spec.trust
        return TrustRepository(
            self.store,
            self._path(spec.directory),
            password=password,
            expiry=Expiry(**spec.expiry.model_dump()),
        )

    def public_keys(self) -> tuple[PublicKey, ...]:
        """The keys whose signatures are accepted; raises KeyFileError."""
        return tuple(load_public(self._path(name)) for name in self._signing.public_keys)

    def private_key(self, password: bytes) -> PrivateKey:
        """The key that signs; raises KeyFileError if its signatures would not be accepted."""
        key = load_private(self._path(self._signing.key), password)
        if key.public not in self.public_keys():
            raise KeyFileError(
                f"the signing key {self._signing.key} is none of spec.signing.publicKeys",
                hint="add its public half there, or correct spec.signing.key",
            )
        return key

    def password_file(self, given: Path | None) -> Path | None:
        """The password file of the command line, else of the project."""
        named = self._signing.password_file
        return given or (self._path(named) if named else None)

    def check_password(self, password: bytes) -> None:
        """Raise KeyFileError where the signing key is here and another password opens it.

        An apply asks for one password, for that key and for those of the releases.
        """
        path = self._path(self._signing.key)
        if not path.is_file():
            return
        try:
            load_private(path, password)
        except KeyFileError as error:
            raise KeyFileError(
                f"{error.message}, and an apply needs one password for it and the release keys",
                hint="give the password of the signing key",
            ) from error

    def trust(self, password: bytes) -> TrustRepository:
        """The release repository, for writing.

        Raises TrustError if there is none yet, KeyFileError if the keys to release with are not
        here: before anything is built.
        """
        trust = self.release_repository(lambda: password)
        if not trust.exists():
            raise TrustError(
                f"{self.store.location} has no release repository yet",
                hint="make its keys and root with `edgectl trust init`",
            )
        for role in trust.status():
            if role.role != "root" and role.keys_here < role.threshold:
                raise KeyFileError(
                    f"{role.keys_here} of the {role.threshold} {role.role} keys that a release "
                    f"needs are in {self._path(self.manifests.project.spec.trust.directory)}",
                    hint="put the private keys there, or release where they are",
                )
        trust.unlock()
        return trust

    @property
    def _signing(self) -> Signing:
        return self.manifests.project.spec.signing

    def _path(self, relative: str) -> Path:
        return self.manifests.project.path(relative)


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Pause the garbage collector, for work whose many objects all stay.

    Manifests and plans have no cycles to free; looking through them again and again costs more the
    more there are.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
