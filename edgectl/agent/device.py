"""Everything one device's agent works with, opened once from its configuration."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgectl.agent.blobs import BlobStore
from edgectl.agent.facts import Facts, measure
from edgectl.agent.lock import lock
from edgectl.agent.probe import Engines, installation, probe
from edgectl.agent.server import Server
from edgectl.agent.slots import SlotStore
from edgectl.agent.state import StateStore
from edgectl.errors import ConfigError
from edgectl.oci.access import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from edgectl.agent.config import DeviceConfig
    from edgectl.agent.state import PollRecord
    from edgectl.oci.store import Store
    from edgectl.trust.client import TrustClient
    from edgectl.trust.keys import PublicKey

_ENGINES = "engines"


@dataclass(frozen=True, slots=True)
class Device:
    """A device's parts. What is heavy (TUF, cryptography) is imported when an update needs it."""

    config: DeviceConfig
    memory: StateStore
    registry: Store
    blobs: BlobStore
    slots: SlotStore
    server: Server | None
    stop: Event
    """Set when the agent is asked to stop."""

    @classmethod
    def open(cls, config: DeviceConfig, memory: StateStore, stop: Event) -> Device:
        """Open the parts; no request is made yet."""
        blobs = BlobStore(config.state)
        server = None if config.server is None else Server(config.server)
        registry = open_store(config.registry, config.access)
        return cls(config, memory, registry, blobs, SlotStore(config.state, blobs), server, stop)

    def facts(self) -> Facts:
        """What this device is, now; the engines are probed again only after an installation."""
        if self.config.simulate is not None:
            from edgectl.agent.profile import simulated_facts

            return simulated_facts(self.config.simulate)
        saved = self.memory.record(_ENGINES)
        engines = Engines() if saved is None else Engines.from_json(saved)
        if engines.key != installation():
            engines = probe()
            self.memory.save_record(_ENGINES, engines.to_json())
        return measure(self.config.state, target=self.config.target, engines=engines)

    def is_whole(self) -> bool:
        """Whether `current` leads to a slot that is all there and has proven itself."""
        current = self.slots.linked("current")
        return current is not None and self.slots.has_proven_itself(current)

    def trust(self) -> TrustClient:
        """The reader of release metadata; raises ConfigError if the root cannot be read."""
        from edgectl.trust.client import TrustClient

        try:
            root = self.config.root.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read the root of trust {self.config.root}: {error.strerror}",
                hint="give the device the root.json that `edgectl trust init` wrote",
            ) from error
        return TrustClient(self.registry, self.config.state / "trust", root)

    def keys(self) -> tuple[PublicKey, ...]:
        """The public keys that models are signed with; raises KeyFileError."""
        from edgectl.trust.keys import load_public

        return tuple(load_public(path) for path in self.config.keys)


@contextmanager
def open_device(
    config: DeviceConfig, stop: Event, memory: type[StateStore] = StateStore
) -> Iterator[tuple[Device, str | None]]:
    """Lock the state directory and open the device.

    The second value says why the agent's memory had to be made anew, if it had to. Raises
    BusyError if another agent is at work, StorageError and StorageFullError.
    """
    with lock(config.state):
        opened, lost = memory.open(config.state)
        with closing(opened):
            yield Device.open(config, opened, stop), lost


def is_stale(poll: PollRecord, now: float | None = None) -> bool:
    """Whether the newest release metadata that this device has seen is past its expiry."""
    if poll.error.get("code") == "trust-expired":
        return True
    return 0 < poll.expires < (time.time() if now is None else now)
