"""Where things are: a registry setting, and a reference to one tag or digest in it.

`host[:port]/prefix` and `host[:port]/repo[:tag|@digest]` name an HTTP registry;
`oci-layout:DIR` and `oci-layout:PATH[:tag|@digest]` name a directory, where each repository below
DIR is a standard OCI image layout of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from edgectl.digest import Digest
from edgectl.errors import ConfigError

_LAYOUT = "oci-layout:"
# OCI distribution-spec v1.1, "Pulling manifests".
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


def is_repository_name(text: object) -> bool:
    """Whether a text is the name of a repository (OCI distribution-spec v1.1)."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _is_host(text: str) -> bool:
    """Docker's rule: the first component is a host if it has a dot, a port, or is localhost."""
    return bool(_HOST.fullmatch(text)) and ("." in text or ":" in text or text == "localhost")


@dataclass(frozen=True, slots=True)
class RegistryLocation:
    """A registry setting: everything below one prefix of a host, or below one directory."""

    base: str
    """`host[:port]` of an HTTP registry, or the directory's path."""
    prefix: str = ""
    """Path below the host that every repository name starts with; empty for a layout."""
    is_layout: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a registry setting; raises ConfigError saying what a right one looks like."""
        if text.startswith(_LAYOUT):
            directory = text.removeprefix(_LAYOUT)
            if not directory:
                raise ConfigError(f"registry {text!r} names no directory", hint="oci-layout:DIR")
            return cls(directory, is_layout=True)
        if "://" in text:
            raise ConfigError(
                f"registry {text!r} has a URL scheme",
                hint="write host[:port]/prefix; plain HTTP is asked for with --insecure",
            )
        host, _, prefix = text.rstrip("/").partition("/")
        if not _is_host(host) or (prefix and not _NAME.fullmatch(prefix)):
            raise ConfigError(
                f"registry {text!r} is neither host[:port]/prefix nor oci-layout:DIR",
                hint="for example registry.example.com/edge, localhost:5000/edge, oci-layout:./out",
            )
        return cls(host, prefix)

    def repository(self, name: str) -> str:
        """The full repository name on the registry of a name below this location."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def reference(
        self, name: str, *, tag: str | None = None, digest: Digest | None = None
    ) -> Reference:
        """The reference to a repository below this location."""
        return Reference(self, name, tag, digest)

    def __str__(self) -> str:
        if self.is_layout:
            return f"{_LAYOUT}{self.base}"
        return f"{self.base}/{self.prefix}" if self.prefix else self.base


@dataclass(frozen=True, slots=True)
class Reference:
    """One repository below a location, with a tag or a digest or neither."""

    location: RegistryLocation
    name: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `host/repo[:tag|@digest]` or `oci-layout:PATH[:tag|@digest]`.

        The location of a parsed reference is the host alone, or the parent of the layout's path.
        Raises ConfigError.
        """
        is_layout = text.startswith(_LAYOUT)
        rest = text.removeprefix(_LAYOUT)
        digest: Digest | None = None
        tag: str | None = None
        if "@" in rest:
            rest, _, digest_text = rest.rpartition("@")
            try:
                digest = Digest.parse(digest_text)
            except ValueError as error:
                raise ConfigError(f"reference {text!r}: {error}") from error
        head, slash, last = rest.rpartition("/")
        if ":" in last and (slash or is_layout):
            last, _, tag = last.partition(":")
            if not _TAG.fullmatch(tag):
                raise ConfigError(f"reference {text!r}: {tag!r} is not a tag")
        rest = f"{head}{slash}{last}"
        if is_layout:
            return cls._layout(text, rest, tag, digest)
        host, _, name = rest.partition("/")
        if not _is_host(host) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{text!r} is not a reference",
                hint="host[:port]/repo[:tag|@digest] or oci-layout:PATH[:tag|@digest]",
            )
        return cls(RegistryLocation(host), name, tag, digest)

    @classmethod
    def _layout(cls, text: str, path: str, tag: str | None, digest: Digest | None) -> Self:
        parent, _, name = path.rstrip("/").rpartition("/")
        if not name or name in {".", ".."}:
            raise ConfigError(f"reference {text!r} names no repository directory")
        return cls(
            RegistryLocation(parent or ("/" if path.startswith("/") else "."), is_layout=True),
            name,
            tag,
            digest,
        )

    def at(self, digest: Digest) -> Self:
        """The same repository pinned to a digest."""
        return replace(self, tag=None, digest=digest)

    @property
    def target(self) -> str:
        """What to ask the repository for: the digest, or else the tag; ConfigError if neither."""
        if self.digest is not None:
            return str(self.digest)
        if self.tag is None:
            raise ConfigError(f"{self} has neither tag nor digest", hint=f"try {self}:TAG")
        return self.tag

    def __str__(self) -> str:
        text = f"{self.location}/{self.name}"
        if self.tag is not None:
            text += f":{self.tag}"
        if self.digest is not None:
            text += f"@{self.digest}"
        return text
