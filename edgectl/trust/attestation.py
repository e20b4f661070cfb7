"""Signed attestations about a manifest or index: provenance, ML-BOM, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgectl.trust import bundle, referrer
from edgectl.trust.bundle import SIGN_PREDICATE, Statement
from edgectl.trust.signature import require_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.store import Repository
    from edgectl.trust.keys import PrivateKey, PublicKey


def attest(
    repository: Repository,
    descriptor: Descriptor,
    predicate_type: str,
    predicate: Mapping[str, Any],
    key: PrivateKey,
) -> Descriptor:
    """Attach a signed statement about an artifact; returns the attestation's descriptor.

    Raises ValueError if the predicate type is the one of signatures.
    """
    if predicate_type == SIGN_PREDICATE:
        raise ValueError(f"{predicate_type} is a signature, not an attestation")
    statement = Statement(descriptor.digest, predicate_type, predicate)
    return referrer.attach(repository, descriptor, bundle.make(statement, key), predicate_type)


def read_attestations(
    repository: Repository,
    descriptor: Descriptor,
    keys: Sequence[PublicKey],
    predicate_type: str | None = None,
) -> list[Statement]:
    """The attestations about an artifact that one of `keys` signed, of one type or of all.

    Those by other keys are left out, and what cannot be read: anyone who can push can attach such
    a one. Raises SignatureError if no key is given, or more are attached than are read.
    """
    require_keys(keys)
    accepted: list[Statement] = []
    for found in referrer.find(repository, descriptor):
        try:
            data = referrer.bundle(repository, found)
            statement = bundle.verify(data, descriptor.digest, keys)
        except referrer.UNUSABLE:
            continue
        wanted = predicate_type is None or statement.predicate_type == predicate_type
        if wanted and statement.predicate_type != SIGN_PREDICATE:
            accepted.append(statement)
    return accepted
