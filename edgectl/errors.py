"""Every error edgectl raises on purpose: what it is, what happens next, and its exit code.

The classes are the contract of the command line: `code` and `exit_code` are stable, `retry` tells
an automation whether trying again can help, and `hint` tells a person what to do next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Retry(StrEnum):
    """Whether doing the same again can succeed."""

    NEVER = "never"
    """Stalled: a person has to change something first."""
    BACKOFF = "backoff"
    """Passing: try again after a growing, jittered delay."""
    WAIT = "wait"
    """Waiting: somebody else has to finish first; nothing is wrong."""


class EdgectlError(Exception):
    """The root of the family.

    `message` says what is wrong in one sentence; `hint` says what to do about it. `retry_after` is
    the delay in seconds that the other side asked for (HTTP `Retry-After`), where it did.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after


class ManifestError(EdgectlError):
    """A manifest is not valid, or names something that is not there."""

    code = "manifest-invalid"
    exit_code = 3


class SourceError(EdgectlError):
    """A model source or data file is missing, unreadable, or has another sha256 than declared."""

    code = "source-invalid"
    exit_code = 4


class ModelError(EdgectlError):
    """A builder refused the model: it does not load, or has an unsupported operator or shape.

    `fault` is what is wrong with it, whichever `builder` found out; `node` is where, if anywhere.
    """

    code = "model-refused"
    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        fault: str = "",
        builder: str | None = None,
        node: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault or message
        self.builder = builder
        self.node = node


class GateError(EdgectlError):
    """A variant was measured and is outside what its gates allow."""

    code = "gate-failed"
    exit_code = 6


class ToolchainError(EdgectlError):
    """A builder's environment cannot be made or does not keep to the builder protocol.

    `fault` is what every step of the builder meets, whichever the model; empty where it is the
    step's own.
    """

    code = "toolchain-failed"
    exit_code = 7

    def __init__(self, message: str, *, hint: str | None = None, fault: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fault = fault


class RegistryUnavailableError(EdgectlError):
    """The registry does not answer, or asks to be left alone for a while (429, 5xx)."""

    code = "registry-unavailable"
    exit_code = 8
    retry = Retry.BACKOFF


class RegistryDeniedError(EdgectlError):
    """The registry refuses: no or wrong credentials, no permission, or read-only."""

    code = "registry-denied"
    exit_code = 9


class StorageFullError(EdgectlError):
    """No space is left where edgectl writes: the registry, the layout directory, or the device."""

    code = "storage-full"
    exit_code = 10
    retry = Retry.BACKOFF


class NotFoundError(EdgectlError):
    """The registry has no such repository, tag, manifest or blob."""

    code = "not-found"
    exit_code = 11


class IntegrityError(EdgectlError):
    """Bytes are not what their digest or declared size says."""

    code = "integrity"
    exit_code = 12


class SignatureError(EdgectlError):
    """No acceptable signature: unsigned, another key, another digest, another predicate."""

    code = "signature-refused"
    exit_code = 13


class TrustError(EdgectlError):
    """Release metadata is refused: expired, under threshold, rolled back, or inconsistent."""

    code = "trust-refused"
    exit_code = 14
    expired: ClassVar[bool] = False
    """Whether age is all that is wrong: a device keeps serving and reports `stale`."""


class ExpiredTrustError(TrustError):
    """Release metadata is genuine but past its expiry: frozen, or nobody refreshed it."""

    code = "trust-expired"
    expired = True


class KeyFileError(EdgectlError):
    """A key file cannot be used: not a key, or the password does not open it."""

    code = "key-unusable"
    exit_code = 15


class IncompatibleError(EdgectlError):
    """No variant runs on this device; the message says why each one does not."""

    code = "incompatible"
    exit_code = 16


class HealthError(EdgectlError):
    """A model was staged but is not healthy: golden outputs, latency, memory or soak checks."""

    code = "unhealthy"
    exit_code = 17


class BusyError(EdgectlError):
    """Another process holds the lock."""

    code = "busy"
    exit_code = 18
    retry = Retry.WAIT


class StorageError(EdgectlError):
    """The file system refuses: read-only, I/O error, or no permission."""

    code = "storage-failed"
    exit_code = 19


class ConfigError(EdgectlError):
    """A device or command configuration is not usable."""

    code = "config-invalid"
    exit_code = 20


class ServerUnavailableError(EdgectlError):
    """The inference server on this device does not answer, through no fault of a model."""

    code = "server-unavailable"
    exit_code = 21
    retry = Retry.BACKOFF
