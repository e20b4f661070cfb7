"""Signatures of manifests and indexes, in cosign v3's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgectl.errors import SignatureError
from edgectl.trust import bundle, referrer
from edgectl.trust.bundle import SIGN_PREDICATE, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    Raises SignatureError if there is none, and says what was wrong with those there are; raises
    IntegrityError naming the blob if a signature's bytes are not what their digest says.
    """
    require_keys(keys)
    refusals: list[str] = []
    for data in referrer.bundles(repository, descriptor):
        try:
            return accept(data, descriptor, keys)
        except SignatureError as error:
            refusals.append(error.message)
    raise refusal(repository, descriptor, refusals)


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
    repository: Repository, descriptor: Descriptor, refusals: Sequence[str]
) -> SignatureError:
    """The error of an artifact without an acceptable signature."""
    what = f"{repository.name}@{descriptor.digest}"
    if not refusals:
        return SignatureError(
            f"{what} is not signed",
            hint="sign it with `edgectl sign`, or apply again; after a copy by another tool, copy "
            "the tags `sha256-…` too, which list the signatures",
        )
    reasons = "; ".join(dict.fromkeys(refusals))
    return SignatureError(
        f"{what} has no acceptable signature: {reasons}",
        hint="is the right public key in use? who could write to the registry?",
    )
