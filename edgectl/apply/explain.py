"""Which variant a device gets: the device's own rules, run where the manifests are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.agent import config
from edgectl.agent.facts import measure
from edgectl.agent.profile import simulated_facts
from edgectl.agent.select import Choice, select
from edgectl.errors import ConfigError, IntegrityError, NotFoundError
from edgectl.oci.descriptor import Index, parse_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.agent.config import DeviceConfig
    from edgectl.agent.facts import Facts
    from edgectl.apply.workspace import Workspace
    from edgectl.trust.release import ModelRef


@dataclass(frozen=True, slots=True)
class Explanation:
    """One model on one device."""

    model: str
    version: str
    device: str
    because: str
    """Why this version."""
    choice: Choice

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        chosen = self.choice.chosen
        return {
            "model": self.model,
            "version": self.version,
            "device": self.device,
            "because": self.because,
            "chosen": chosen
            and {
                "target": chosen.target,
                "precision": chosen.precision,
                "engine": chosen.engine,
                "digest": str(chosen.descriptor.digest),
            },
            "rejected": [
                {"target": item.target, "reason": item.reason} for item in self.choice.rejected
            ],
        }


def explain_model(workspace: Workspace, model: str, device: Path) -> Explanation:
    """Explain `NAME` or `NAME:VERSION` for the device that a device.yaml describes.

    Raises ConfigError if no such model is released to it, NotFoundError if a version is not in
    the registry.
    """
    settings = config.load(device)
    name, _, version = model.partition(":")
    repository = workspace.store.repository(f"models/{name}")
    if version:
        target, because = version, "asked for"
    else:
        ref, because = _released(workspace, name, settings)
        # What the ring is to run: the tag may have gone on to a newer build of the version.
        version, target = ref.version, str(ref.digest)
    if repository.resolve(target) is None:
        raise NotFoundError(
            f"{name}:{version} is not in {workspace.store.location}",
            hint="edgectl apply builds it; edgectl status lists what is there",
        )
    index = parse_manifest(repository.read_manifest(target)[1])
    if not isinstance(index, Index):
        raise IntegrityError(f"{repository.name}:{version} is not the index of a model version")
    choice = select(index.manifests, _facts(settings))
    return Explanation(name, version, settings.device, because, choice)


def _facts(device: DeviceConfig) -> Facts:
    """Simulated where the device says so; else those of this machine, which is to be the device."""
    if device.simulate is not None:
        return simulated_facts(device.simulate)
    return measure(device.state, target=device.target)


def _released(workspace: Workspace, name: str, device: DeviceConfig) -> tuple[ModelRef, str]:
    """What the device's ring is to run of a model, and why."""
    release = workspace.release(device.fleet)
    ring = release.ring_of(device.device, device.labels)
    if ring is None:
        raise ConfigError(
            f"no ring of fleet {release.fleet} selects the device {device.device}",
            hint=f"its labels are {dict(device.labels)}; name a version to explain it anyway",
        )
    for ref in ring.models:
        if ref.name == name:
            return ref, f"ring {ring.name} of fleet {release.fleet}"
    released = ", ".join(ref.name for ref in ring.models) or "none"
    raise ConfigError(
        f"ring {ring.name} of fleet {release.fleet} has no model {name!r}",
        hint=f"its models are {released}",
    )
