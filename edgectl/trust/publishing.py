"""One publisher of releases at a time.

On one machine a lock on the trust directory decides, and for a layout one on the layout. A
registry has no compare-and-swap, so publishers on different machines show each other leases: tags
`lease-<until>-<nonce>`. Each writes its own first and looks for others then, so of two at once at
least one sees the other and gives way. This needs a registry whose tag list shows what was just
pushed, and clocks less than a few minutes apart.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.errors import BusyError, EdgectlError, NotFoundError
from edgectl.oci.descriptor import EMPTY_CONFIG, OCI_MANIFEST, Manifest, parse_manifest
from edgectl.oci.filesystem import storage_errors
from edgectl.trust.metadata import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgectl.oci.store import Repository, Store

_log = logging.getLogger(__name__)

_LEASE_SECONDS = 600
_LEASE = re.compile(r"lease-(\d{1,12})-[0-9a-f]{16}")
_LEASE_TYPE = "application/vnd.edgectl.lease.v1+json"
_STATE = "dev.edgectl.lease"
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody sets. Linux's monotonic one stands still while the machine sleeps, and a
lease does not."""


@contextmanager
def exclusively(store: Store, directory: Path) -> Iterator[Callable[[], None]]:
    """Publish alone while the block runs.

    Yields a function to call right before the release takes effect: it raises BusyError if so
    much time went by that another publisher may have begun. Raises BusyError if one is at work.
    """
    with ExitStack() as stack:
        stack.enter_context(_locked(directory))
        if store.location.is_layout:
            stack.enter_context(_locked(Path(store.location.base) / REPOSITORY))
            yield lambda: None
            return
        repository = store.repository(REPOSITORY)
        yield stack.enter_context(_leased(repository))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a directory itself: no lock file is left in it."""
    with storage_errors(f"locking {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(f"another edgectl is publishing with {directory}") from error
        yield
    finally:
        os.close(handle)


@contextmanager
def _leased(repository: Repository) -> Iterator[Callable[[], None]]:
    began = time.clock_gettime(_CLOCK)
    until = int(time.time()) + _LEASE_SECONDS
    tag = f"lease-{until}-{secrets.token_hex(8)}"
    repository.push_blob(EMPTY_CONFIG, b"{}")
    repository.push_manifest(_lease("held", tag), OCI_MANIFEST, tag=tag)

    def check() -> None:
        # By the time of day too, which is what others go by: a virtual machine that was paused
        # learns of it from nothing else.
        left = min(_LEASE_SECONDS - (time.clock_gettime(_CLOCK) - began), until - time.time())
        if left < _LEASE_SECONDS / 2:
            raise _busy("publishing took so long that another edgectl may have begun")

    try:
        for other in repository.tags():
            if other != tag and _holds(repository, other):
                raise _busy(f"another edgectl is publishing to {repository.name} ({other})")
        yield check
    finally:
        _release(repository, tag)


def _holds(repository: Repository, tag: str) -> bool:
    """Whether a tag is a lease that is neither over nor given back."""
    match = _LEASE.fullmatch(tag)
    if match is None or int(match[1]) < time.time():
        return False
    try:
        _, data = repository.read_manifest(tag)
    except NotFoundError:
        return False
    return parse_manifest(data).annotations.get(_STATE) == "held"


def _release(repository: Repository, tag: str) -> None:
    """Give a lease back. Where that fails it ends by itself, and what was published stands: an
    error would have the publisher do it again."""
    # Overwritten first, since many registries allow no deletion.
    try:
        repository.push_manifest(_lease("released", tag), OCI_MANIFEST, tag=tag)
    except EdgectlError as error:
        _log.warning(
            "%s:%s was not given back, and keeps other publishers out for up to %d minutes: %s",
            repository.name,
            tag,
            _LEASE_SECONDS // 60,
            error.message,
        )
        return
    try:
        repository.delete(tag)
    except EdgectlError:
        return  # the tag stays, and says that it is released


def _lease(state: str, tag: str) -> bytes:
    return Manifest(
        config=EMPTY_CONFIG,
        layers=(EMPTY_CONFIG,),
        artifact_type=_LEASE_TYPE,
        annotations={_STATE: state, "dev.edgectl.lease.name": tag},
    ).to_bytes()


def _busy(message: str) -> BusyError:
    return BusyError(
        message,
        hint="try again when it is done; the lease of one that was killed ends "
        f"after {_LEASE_SECONDS // 60} minutes",
    )
