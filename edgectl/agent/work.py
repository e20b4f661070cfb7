"""The work of each state of an update. Knows nothing of transitions, which are the machine's.

Each method does one state's work on the operation it is given, and returns the operation as it
goes on, or None if there is nothing to do. It raises an EdgectlError where the work fails.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edgectl.agent.accuracy import labelled, measure_accuracy
from edgectl.agent.blobs import remove
from edgectl.agent.compiling import compile_model, is_compiled_here
from edgectl.agent.device import is_stale
from edgectl.agent.facts import free_bytes
from edgectl.agent.failure import RememberedError, SupersededError, from_text
from edgectl.agent.soak import await_slot, require_accuracy, watch
from edgectl.agent.stopping import pause
from edgectl.agent.warmup import require_healthy, warm_up
from edgectl.errors import (
    EdgectlError,
    HealthError,
    NotFoundError,
    ServerUnavailableError,
    StorageFullError,
)
from edgectl.quantity import format_bytes
from edgectl.serve.slot import compiled_cache, compiled_path, model_path, switch_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgectl.agent.device import Device
    from edgectl.agent.facts import Facts
    from edgectl.agent.resolve import Resolved, ResolvedModel
    from edgectl.agent.server import Server
    from edgectl.agent.state import Operation, PollRecord
    from edgectl.digest import Digest
    from edgectl.oci.descriptor import Descriptor

TRUST_REPOSITORY = "trust"
TIMESTAMP_TAG = "timestamp"
_LOOK = 0.1
"""Seconds between looks at the server."""

_log = logging.getLogger(__name__)


class Work:
    """One update's work; what one state found out and a later one needs is kept here."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._facts: Facts | None = None
        self._resolved: Resolved | None = None
        self._look_again = time.monotonic() + device.config.interval
        self.poll: PollRecord = device.memory.poll()
        """What this poll found; the machine persists it with the transition that ends it."""
        self.settles = ""
        """What `PollRecord.settled` becomes when this poll needs no further work."""
        self.unchanged = False
        """Whether the release is the one that was settled before."""

    # -- before the switch -----------------------------------------------------------------

    def check(self, operation: Operation) -> Operation | None:
        """One HEAD: does the registry have other release metadata than was dealt with?

        What was dealt with depends on what the device is, too: a label or an engine that changed
        makes the same release another question, and so does a slot that is gone.
        """
        repository = self._device.registry.repository(TRUST_REPOSITORY)
        head = repository.resolve(TIMESTAMP_TAG)
        if head is None:
            raise NotFoundError(
                f"{self._device.config.registry} has no release yet",
                hint="`edgectl apply` makes one; is `registry` right in device.yaml?",
            )
        self._facts = self._device.facts()
        config = self._device.config
        labels = ",".join(f"{key}={value}" for key, value in sorted(config.labels.items()))
        self.settles = f"{head.digest} {config.fleet} {labels} {self._facts.fingerprint}"
        damaged = bool(self.poll.ring) and not self.poll.refusal and not self._device.is_whole()
        if self.settles != self.poll.settled or damaged:
            return operation
        self.unchanged = True
        if is_stale(self.poll):
            _log.warning("release metadata has expired: the device goes on with what it runs")
        return None

    def resolve(self, operation: Operation) -> Operation | None:
        """Refresh the release metadata and find out what it asks of this device."""
        from edgectl.agent.resolve import resolve

        device, config = self._device, self._device.config
        if config.check_directory:
            self._check_directory()
        trust = device.trust()
        trust.refresh()
        expires = trust.expires()
        release = trust.release(config.fleet)
        ring = release.ring_of(config.device, config.labels)
        self.poll = replace(
            self.poll,
            expires=0.0 if expires is None else expires.timestamp(),
            generation=release.generation,
            ring="" if ring is None else ring.name,
        )
        if ring is None:
            return None
        facts = self._facts or device.facts()
        resolved = resolve(device.registry, release, ring, facts, device.keys())
        wanted = resolved.slot.digest
        current = device.slots.linked("current")
        if wanted == current and device.slots.has_proven_itself(wanted):
            return None
        self._refuse_remembered(resolved)
        for name in resolved.soak.min_accuracy:
            if samples := config.samples.get(name):
                labelled(samples)  # unusable samples are no fault of a model: say so before trying
        self._resolved = resolved
        # A slot that is damaged is a way back, too, once it is made again, if it had proven itself.
        way_back = current != wanted or device.slots.is_committed(wanted)
        return replace(
            operation,
            slot=wanted,
            old=current if way_back else None,
            older=device.slots.linked("previous"),
            generation=release.generation,
            ring=ring.name,
        )

    def _check_directory(self) -> None:
        """Hash all that a registry directory holds, for this device or another."""
        from edgectl.oci.layout import LayoutStore

        store = self._device.registry
        if isinstance(store, LayoutStore):  # device.yaml is refused otherwise
            for repository in store.repositories():
                for _ in repository.check_blobs():
                    pause(0, self._device.stop)

    def download(self, operation: Operation) -> Operation:
        """Fetch every blob that is not here yet, resuming what was begun."""
        from edgectl.oci.transfer import pull_blob

        device = self._device
        device.blobs.prepare()
        wanted = list(self._blobs())
        missing = [blob for _, blob in wanted if not device.blobs.has(blob)]
        device.blobs.require_space(missing, device.config.reserve, free_bytes(device.config.state))
        for repository, blob in wanted:
            pause(0, self._device.stop)
            if not device.blobs.has(blob):
                _log.info("download blob=%s bytes=%d", blob.digest, blob.size)
                path = device.blobs.path(blob.digest)
                source = device.registry.repository(repository)
                pull_blob(source, blob, path, on_progress=lambda _: pause(0, device.stop))
        for model in self._models():
            device.blobs.put(model.entry.manifest, model.manifest)
        return operation

    def verify(self, operation: Operation) -> Operation:
        """Hash everything again as it is on disk, against digests that were signed."""
        for model in self._models():
            self._device.blobs.read(model.entry.manifest)
        for _, blob in self._blobs():
            pause(0, self._device.stop)
            self._device.blobs.check(blob)
        return operation

    def stage(self, operation: Operation) -> Operation:
        """Assemble the slot beside those that serve."""
        files = {model.entry.name: model.files for model in self._models()}
        self._device.slots.assemble(self._require_resolved().slot, files)
        return operation

    def compile(self, operation: Operation) -> Operation:
        """Make what an engine compiles on the device itself; most compile nothing."""
        config, slots = self._device.config, self._device.slots
        facts = self._facts or self._device.facts()
        for model in self._models():
            if not is_compiled_here(model.variant, facts):
                continue
            name, cache = model.entry.name, compiled_path(config.state, model.entry.manifest)
            compile_model(
                name, model_path(config.state, self._slot(operation), name), cache, slots.timing,
                threads=config.threads, timeout=config.compile_timeout, stop=self._device.stop,
            )  # fmt: skip
            free = free_bytes(config.state)
            if free < config.reserve:
                remove(cache)
                raise StorageFullError(
                    f"what was compiled of {name} leaves {format_bytes(free)} of disk, "
                    f"{format_bytes(config.reserve)} are reserved",
                    hint="free some disk, or lower limits.reserve in device.yaml",
                )
        return operation

    def warmup(self, operation: Operation) -> Operation:
        """Try every model in a process of its own, and hold it to what its variant promises."""
        config, server = self._device.config, self._device.server
        if server is not None:
            server.status()  # a server that is away is no reason to switch, or to blame the slot
        simulated = self._facts is not None and self._facts.simulated
        reports = {}
        for model in self._models():
            name = model.entry.name
            directory = model_path(config.state, self._slot(operation), name)
            report = warm_up(
                name, directory, threads=config.threads, timeout=config.warmup_timeout,
                stop=self._device.stop,
                engine=model.variant.engine,
                cache=compiled_cache(config.state, model.entry.manifest),
            )  # fmt: skip
            require_healthy(name, report, model.variant.requires, simulated=simulated)
            reports[name] = report.to_json(simulated=simulated)
        measured = {"slot": str(self._slot(operation)), "models": reports}
        self._device.memory.save_record("warmup", measured)
        return operation

    # -- on probation ----------------------------------------------------------------------

    def switch(self, operation: Operation) -> Operation:
        """Point `current` at the new slot and wait until it serves."""
        state, slot, server = self._device.config.state, self._slot(operation), self._device.server
        if operation.old is not None and operation.old != slot:
            switch_link(state, "previous", operation.old)
        if server is not None and self._device.slots.linked("current") == slot:
            self._forget_failure(server, slot)
        switch_link(state, "current", slot)
        if server is not None:
            await_slot(server, slot, self._device.config.switch_timeout, self._device.stop)
        return operation

    def _forget_failure(self, server: Server, slot: Digest) -> None:
        """Let the server forget that it could not load a slot that has been made again since.

        It would say so until it tries again, which takes it up to a minute. Without the link it
        lets go, and with the link it tries at once.
        """
        if server.status().state != "failed":
            return
        self._device.slots.unlink("current")
        deadline = time.monotonic() + self._device.config.switch_timeout
        while server.status().wanted == slot.hex and time.monotonic() < deadline:
            pause(_LOOK, self._device.stop)

    def soak(self, operation: Operation) -> Operation:
        """Measure accuracy on the labelled samples, then watch the server under real traffic.

        Without a server there is no traffic to watch, and the samples decide at once. A slot that
        had proven itself, and was only made again, has nothing more to prove.
        """
        slot, settings = self._slot(operation), self._require_resolved().soak
        if slot == operation.old:
            return operation
        for model in self._models():
            name = model.entry.name
            if name not in settings.min_accuracy:
                continue
            measured = measure_accuracy(self._device, slot, model.entry)
            if measured is None:
                _log.warning("no labelled samples of %s here: its accuracy is not checked", name)
            else:
                require_accuracy(name, measured, settings)
        if self._device.server is not None:
            report = watch(
                self._device.server,
                slot,
                settings,
                patience=self._device.config.switch_timeout,
                stop=self._device.stop,
                meanwhile=self._require_newest,
            )
            _log.info("soaked requests=%d errors=%d", report.requests, report.errors)
        return operation

    def _require_newest(self) -> None:
        """Poll as an idle device would; raises SupersededError if something else is released.

        A probation may last a day, in which the operator may roll back what is on probation.
        """
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + self._device.config.interval
        try:
            superseded = self._is_superseded()
        except EdgectlError as error:
            _log.warning("state=soak code=%s error=%s", error.code, error.message)
            return
        if superseded:
            raise SupersededError(
                "another release replaces what was on probation",
                hint="the next poll follows it",
            )

    def _is_superseded(self) -> bool:
        device, config = self._device, self._device.config
        head = device.registry.repository(TRUST_REPOSITORY).resolve(TIMESTAMP_TAG)
        if head is None or self.settles.startswith(str(head.digest)):
            return False
        ring = device.trust().release(config.fleet).ring_of(config.device, config.labels)
        if ring is None:
            return False
        tried = {(m.entry.name, m.entry.version, m.entry.index) for m in self._models()}
        return tried != {(ref.name, ref.version, ref.digest) for ref in ring.models}

    # -- afterwards ------------------------------------------------------------------------

    def commit(self, operation: Operation) -> Operation:
        """Note in the slot itself that it has proven itself."""
        slot = self._slot(operation)
        self._device.slots.mark_committed(slot)
        self._device.memory.forget_crashes(slot)
        return operation

    def cleanup(self, operation: Operation) -> Operation:
        """Remove what neither `current` nor `previous` needs."""
        self._device.slots.prune()
        return operation

    def rollback(self, operation: Operation) -> Operation:
        """Let the last known good slot serve again: the old one, or else the one before it.

        Each is tried once. If the server can load neither, the old one stays linked, because it
        is the last that was seen working; without any, the link goes.
        """
        state, slots = self._device.config.state, self._device.slots
        good = [slot for slot in (operation.old, operation.older) if slot and slots.is_usable(slot)]
        for slot in good:
            switch_link(state, "current", slot)
            if self._serves(slot):
                break
        else:
            if good:
                switch_link(state, "current", good[0])
            else:
                slots.unlink("current")
        if operation.older is not None and slots.is_usable(operation.older):
            switch_link(state, "previous", operation.older)
        else:
            slots.unlink("previous")
        return operation

    def failed(self, operation: Operation) -> Operation:
        """Remove what failed for good or filled the disk; what may yet pass keeps its downloads."""
        if from_text(operation.error).get("code") in {HealthError.code, StorageFullError.code}:
            self._device.slots.prune()
        return operation

    # -- shared ----------------------------------------------------------------------------

    def _serves(self, slot: Digest) -> bool:
        """Whether the server answers from a slot; a server that is away will do so when back."""
        server = self._device.server
        if server is None:
            return True
        try:
            await_slot(server, slot, self._device.config.switch_timeout, self._device.stop)
        except HealthError as error:
            _log.error("rollback slot=%s problem=%s", slot.short, error.message)
            return False
        except ServerUnavailableError as error:
            _log.warning("rollback slot=%s problem=%s", slot.short, error.message)
        return True

    def _refuse_remembered(self, resolved: Resolved) -> None:
        failed = {entry.digest: entry for entry in self._device.memory.failed()}
        for digest in (resolved.slot.digest, *(m.entry.manifest for m in resolved.models)):
            if digest in failed:
                raise RememberedError(
                    f"the release asks for {failed[digest].kind} {digest.short}, which failed on "
                    f"this device before: {failed[digest].reason}",
                    hint="release another version; this device stays with what it runs",
                )

    def _require_resolved(self) -> Resolved:
        if self._resolved is None:
            raise RuntimeError("an update goes through RESOLVE first")
        return self._resolved

    def culprit(self, model: str) -> Digest | None:
        """The manifest digest of a model of this update."""
        models = () if self._resolved is None else self._resolved.models
        return next((m.entry.manifest for m in models if m.entry.name == model), None)

    def _models(self) -> tuple[ResolvedModel, ...]:
        return self._require_resolved().models

    def _blobs(self) -> Iterator[tuple[str, Descriptor]]:
        """Every blob of the update with its repository, in order, each digest once."""
        seen: set[Digest] = set()
        for model in self._models():
            for blob in model.blobs:
                if blob.digest not in seen:
                    seen.add(blob.digest)
                    yield model.repository, blob

    @staticmethod
    def _slot(operation: Operation) -> Digest:
        if operation.slot is None:
            raise RuntimeError(f"{operation.state} has no slot")
        return operation.slot
