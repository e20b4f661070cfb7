"""Facts of a hardware profile, for a device that simulates other hardware and says so.

Reads the `Target` manifests that come with edgectl, or a file; the full validation of manifests
is not for devices.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.agent.facts import Facts
from edgectl.errors import ConfigError
from edgectl.quantity import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PACKAGE = Path(__file__).parent.parent
_DIRECTORIES = (_PACKAGE / "_targets", _PACKAGE.parent / "manifests" / "targets")
"""In an installed wheel, and in a checkout."""


def simulated_facts(profile: str) -> Facts:
    """Facts of the profile of a name, or of the first one in a YAML file.

    Raises ConfigError if there is no such profile or it is not a Target.
    """
    if profile.endswith((".yaml", ".yml")):
        for value in _documents(Path(profile)):
            return _facts(value)
        raise ConfigError(f"{profile} has no Target", hint="give a file with a Target manifest")
    names = []
    for value in _shipped():
        name = value["metadata"]["name"]
        if name == profile:
            return _facts(value)
        names.append(name)
    close = difflib.get_close_matches(profile, names, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"there is no hardware profile {profile!r} to simulate",
        hint=f"{meant}there are {', '.join(sorted(names))}; a YAML file with a Target will do, too",
    )


def family_of(profile: str) -> str | None:
    """The family of a shipped profile; None if it is not a shipped one."""
    for value in _shipped():
        if value["metadata"]["name"] == profile:
            return str(value["spec"]["family"])
    return None


def _shipped() -> Iterator[Mapping[str, Any]]:
    for directory in _DIRECTORIES:
        if directory.is_dir():
            for path in sorted(directory.glob("*.yaml")):
                yield from _documents(path)
            return


def _documents(path: Path) -> Iterator[Mapping[str, Any]]:
    import yaml

    try:
        for value in yaml.safe_load_all(path.read_bytes()):
            if isinstance(value, dict) and value.get("kind") == "Target":
                yield value
    except (OSError, yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # ValueError and AttributeError: a scalar that looks like a date or number, and is none
        raise ConfigError(
            f"cannot read the hardware profile {path}: {error}",
            hint="correct the file, or simulate another profile",
        ) from error


def _facts(value: Mapping[str, Any]) -> Facts:
    name = "?"
    try:
        name = str(value["metadata"]["name"])
        spec = value["spec"]
        platform, engine, cpu = spec["platform"], spec.get("engine", {}), spec.get("cpu", {})
        return Facts(
            os=platform["os"],
            architecture=platform["architecture"],
            variant=platform.get("variant"),
            family=spec["family"],
            target=name,
            cpu_features=frozenset(cpu.get("features", ())),
            cores=int(cpu.get("cores", 1)),
            memory=parse_bytes(str(spec["memory"])),
            storage=parse_bytes(str(spec["storage"])),
            accelerators=frozenset(item["kind"] for item in spec.get("accelerators", ())),
            engines={engine["name"]: _version(engine.get("version", ""))} if engine else {},
            providers=frozenset(engine.get("providers", ())),
            compute_capability=next(
                (
                    str(item["computeCapability"])
                    for item in spec.get("accelerators", ())
                    if "computeCapability" in item
                ),
                "",
            ),
            simulated=True,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"hardware profile {name} is malformed: {error!r}") from error


def _version(requirement: str) -> str:
    """The least version that a profile's requirement (`>=1.20`) allows: what it promises."""
    return requirement.split(",", maxsplit=1)[0].lstrip("<>=~! ") or "0"
