"""Signatures of manifests and indexes, in cosign v3's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.trust import bundle, referrer
from edgectl.trust.bundle import SIGN_PREDICATE, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgectl.errors import EdgectlError
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.store import Repository
    from edgectl.trust.keys import PrivateKey, PublicKey


def sign(repository: Repository, descriptor: Descriptor, key: PrivateKey) -> Descriptor:
    """Sign a manifest or index that is in the repository; returns the signature's descriptor.

    Signing again with the same key changes nothing.
    """
    statement = Statement(descriptor.digest, SIGN_PREDICATE, {})
    return referrer.attach(repository, descriptor, bundle.make(statement, key), SIGN_PREDICATE)


def verify(repository: Repository, descriptor: Descriptor, keys: Sequence[PublicKey]) -> Statement:
    """The statement of a signature over `descriptor` by one of `keys`.

    Raises SignatureError if there is none, and says what was wrong with those there are; then,
    where the bytes of one are not what their digest says, it is IntegrityError naming the blob,
    and NotFoundError where one is not there, which may come.
    """
    require_keys(keys)
    faults: list[EdgectlError] = []
    for found in referrer.find(repository, descriptor):
        try:
            return accept(referrer.bundle(repository, found), descriptor, keys)
        except referrer.UNUSABLE as error:
            faults.append(error)
    raise refusal(repository, descriptor, faults)


def accept(data: bytes, descriptor: Descriptor, keys: Sequence[PublicKey]) -> Statement:
    """The statement of one bundle, if it is a signature and acceptable; raises SignatureError."""
    statement = bundle.verify(data, descriptor.digest, keys)
    if statement.predicate_type != SIGN_PREDICATE:
        raise SignatureError(f"an attestation ({statement.predicate_type}) is not a signature")
    return statement


def require_keys(keys: Sequence[PublicKey]) -> None:
    """Refuse an empty policy: with no key, nothing could ever be acceptable."""
    if not keys:
        raise SignatureError(
            "no public key was given to verify with", hint="give at least one with --key"
        )


def refusal(
    repository: Repository, descriptor: Descriptor, faults: Sequence[EdgectlError]
) -> SignatureError | IntegrityError | NotFoundError:
    """The error of an artifact without an acceptable signature; `faults` are of those it has."""
    what = f"{repository.name}@{descriptor.digest}"
    if not faults:
        return SignatureError(
            f"{what} is not signed",
            hint="sign it with `edgectl sign`, or apply again; after a copy by another tool, copy "
            "the tags `sha256-…` too, which list the signatures",
        )
    reasons = "; ".join(dict.fromkeys(fault.message for fault in faults))
    message = f"{what} has no acceptable signature: {reasons}"
    damaged = next((fault for fault in faults if isinstance(fault, IntegrityError)), None)
    if damaged is not None:  # the good one, perhaps
        return IntegrityError(message, hint=damaged.hint or "sign it again")
    if any(isinstance(fault, NotFoundError) for fault in faults):
        return NotFoundError(message, hint="copy the signatures too, or sign it again")
    return SignatureError(
        message, hint="is the right public key in use? who could write to the registry?"
    )
