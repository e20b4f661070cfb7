"""`device.yaml`: who this device is, what it trusts and where it keeps things.

Read once at the start, strictly: every problem of the file is reported in one ConfigError.
Relative paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.agent.fields import Fields, read_yaml
from edgectl.errors import ConfigError
from edgectl.oci.access import Access

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgectl.oci.reference import RegistryLocation


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A device's settings, with absolute paths and seconds."""

    device: str
    labels: Mapping[str, str]
    fleet: str
    registry: RegistryLocation
    state: Path
    root: Path
    """The TUF root of trust that the device was shipped with."""
    keys: tuple[Path, ...]
    """Public keys that models are signed with; any of them will do."""
    access: Access = field(default_factory=Access)
    check_directory: bool = False
    """Hash every blob of an `oci-layout:` registry before a release is taken from it."""
    simulate: str | None = None
    """Take the facts of this hardware profile (its name, or a file) instead of measuring them."""
    target: str | None = None
    """The profile that this hardware is, where it cannot tell by itself."""
    server: str | None = None
    """Base URL of `edgectl serve` on this device."""
    samples: Mapping[str, Path] = field(default_factory=dict)
    """Per model, a directory of labelled samples to measure accuracy on."""
    interval: float = 1800.0
    """Seconds between polls."""
    jitter: float = 0.2
    """Fraction of the interval that a poll is early or late by, at random."""
    threads: int = 1
    """Threads that warm-up gives the engine."""
    compile_timeout: float = 1800.0
    """Seconds that an engine may take to compile one model."""
    warmup_timeout: float = 300.0
    """Seconds that the warm-up of one model may take."""
    switch_timeout: float = 60.0
    """Seconds that the server may take to load a new slot."""
    reserve: int = 64 << 20
    """Bytes of disk that an update must leave free."""


def load(path: Path) -> DeviceConfig:
    """Read a device's configuration; raises ConfigError with everything that is wrong in it."""
    fields = Fields(read_yaml(path, _HINT), path.absolute().parent)
    config = _device_config(fields)
    if fields.problems:
        listed = "".join(f"\n  - {problem}" for problem in fields.problems)
        raise ConfigError(f"{path} is not a device configuration:{listed}", hint=_HINT)
    return config


_HINT = "docs/how-to/device.md shows a complete device.yaml"


def _device_config(fields: Fields) -> DeviceConfig:
    device, access, trust = (fields.section(key) for key in ("device", "access", "trust"))
    facts, server, poll = (fields.section(key) for key in ("facts", "server", "poll"))
    limits = fields.section("limits")
    registry = fields.registry("registry")
    samples = fields.section("samples")
    config = DeviceConfig(
        device=device.text("id", required=True),
        labels=device.section("labels").texts(),
        fleet=fields.text("fleet", required=True),
        registry=registry,
        access=_access(access),
        check_directory=access.flag("checkDirectory"),
        state=fields.path("state", required=True) or Path(),
        root=trust.file("root", required=True) or Path(),
        keys=fields.files("keys"),
        simulate=_profile(facts),
        target=facts.text("target") or None,
        server=server.url("url"),
        samples=samples.directories(),
        interval=poll.seconds("interval", 1800.0),
        jitter=poll.number("jitter", 0.2, 0, 1),
        threads=int(fields.number("threads", 1, 1, 1024)),
        compile_timeout=limits.seconds("compile", 1800.0),
        warmup_timeout=limits.seconds("warmup", 300.0),
        switch_timeout=limits.seconds("switch", 60.0),
        reserve=limits.size("reserve", 64 << 20),
    )
    if config.simulate and config.target:
        fields.problem("facts has both simulate and target: simulate replaces measuring, "
                       "target names what is measured")  # fmt: skip
    if config.check_directory and not registry.is_layout:
        fields.problem(f"{access.name('checkDirectory')} is for a registry that is a directory, "
                       "such as oci-layout:/mnt/stick/registry")  # fmt: skip
    if config.interval <= 0:
        fields.problem("poll.interval has to be longer than nothing")
    for section in (fields, device, access, trust, facts, server, poll, limits):
        section.end()
    return config


def _access(fields: Fields) -> Access:
    return Access(
        username=fields.text("username") or None,
        password=_password(fields),
        docker_config=fields.file("dockerConfig"),
        ca_file=fields.file("caFile"),
        insecure=fields.flag("insecure"),
    )


def _password(fields: Fields) -> str | None:
    """The registry password, from a file of its own: device.yaml is no place for a secret."""
    path = fields.file("passwordFile")
    if path is None or not path.is_file():
        return None
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        fields.problem(f"{fields.name('passwordFile')}: cannot read {path}: {error}")
        return None


def _profile(facts: Fields) -> str | None:
    text = facts.text("simulate")
    if text.endswith((".yaml", ".yml")):
        return str(facts.base / text)
    return text or None
