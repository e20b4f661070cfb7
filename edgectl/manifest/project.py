"""`Project`: the root of a GitOps repository, `edgectl.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from edgectl.errors import ConfigError
from edgectl.manifest.base import Element, Lax, Manifest, RelativePath, Seconds, Text, written
from edgectl.oci.reference import RegistryLocation


def _registry(text: str) -> str:
    try:
        RegistryLocation.parse(text)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return text


class Signing(Element):
    """The keys that sign what is released. Paths are relative to the project file, or absolute:
    private keys need not be in the repository."""

    key: Text = Field(
        default="keys/cosign.key",
        description="Private key that signs, in cosign's encrypted PEM form.",
        examples=["keys/cosign.key"],
    )
    public_keys: Annotated[tuple[Text, ...], Lax] = Field(
        default=("keys/cosign.pub",),
        min_length=1,
        description="Public keys whose signatures are accepted; one of them is enough.",
        examples=[["keys/cosign.pub"]],
    )
    password_file: Text | None = Field(
        default=None,
        description="File that holds the private key's password. Without it: the environment "
        "variable EDGECTL_KEY_PASSWORD, else a prompt.",
        examples=["/run/secrets/cosign-password"],
    )


class Expiry(Element):
    """How long each role of the release metadata (TUF) is good for. A device that sees nothing
    newer keeps serving and reports `stale`."""

    root: Seconds = Field(
        default=written("365d"), gt=0, description="The key list.", examples=["365d"]
    )
    targets: Seconds = Field(
        default=written("90d"), gt=0, description="What each fleet is to run.", examples=["90d"]
    )
    snapshot: Seconds = Field(
        default=written("7d"),
        gt=0,
        description="Which versions of the metadata belong together.",
        examples=["7d"],
    )
    timestamp: Seconds = Field(
        default=written("1d"),
        gt=0,
        description="That this is the newest. Renewed by `edgectl trust refresh`.",
        examples=["1d"],
    )


class Build(Element):
    """How builders are run."""

    step_timeout: Seconds = Field(
        default=written("2h"),
        gt=0,
        description="Most time that a builder may take for one step of one model. One that takes "
        "longer hangs, and is ended.",
        examples=["2h"],
    )


class Trust(Element):
    """The release metadata (TUF)."""

    directory: Text = Field(
        default="trust",
        description="Directory of the TUF root and role keys, relative to the project file.",
        examples=["trust"],
    )
    expiry: Expiry = Field(
        default_factory=Expiry,
        description="How long each role is good for.",
        examples=[{"timestamp": "1d"}],
    )


class ProjectSpec(Element):
    """Where things are, and who signs."""

    registry: Annotated[Text, AfterValidator(_registry)] = Field(
        description="`host[:port]/prefix` of an OCI registry, or `oci-layout:DIR` with DIR "
        "relative to the project file.",
        examples=["oci-layout:registry", "registry.example.com/edge"],
    )
    manifests: Annotated[tuple[RelativePath, ...], Lax] = Field(
        default=(".",),
        min_length=1,
        description="Directories searched, with all below them, for `*.yaml` and `*.yml`. Hidden "
        "directories and the project's own `builders` and `templates` are left out.",
        examples=[["models", "fleets"]],
    )
    signing: Signing = Field(
        default_factory=Signing,
        description="The keys that sign.",
        examples=[{"key": "keys/cosign.key"}],
    )
    build: Build = Field(
        default_factory=Build,
        description="What builders may take.",
        examples=[{"stepTimeout": "2h"}],
    )
    trust: Trust = Field(
        default_factory=Trust,
        description="The release metadata.",
        examples=[{"directory": "trust"}],
    )


class Project(Manifest):
    """The root of a GitOps repository: one `Project`, in `edgectl.yaml`."""

    kind: Literal["Project"] = Field(description="The kind.", examples=["Project"])
    spec: ProjectSpec = Field(
        description="What the project says.", examples=[{"registry": "oci-layout:registry"}]
    )

    @property
    def registry(self) -> RegistryLocation:
        """The registry, with a layout's directory made relative to the project file."""
        location = RegistryLocation.parse(self.spec.registry)
        if not location.is_layout:
            return location
        return RegistryLocation(str(self.origin.path.parent / Path(location.base)), is_layout=True)
