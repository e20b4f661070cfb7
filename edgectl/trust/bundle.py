"""Sigstore bundles: a DSSE envelope around an in-toto statement, signed by a key.

What cosign v3 writes for `cosign sign --key` without a transparency log: sigstore bundle v0.3
(protobuf-specs `sigstore_bundle.proto`, JSON form), DSSE v1 (secure-systems-lab/dsse
`protocol.md`), in-toto Statement v1 (in-toto/attestation `spec/v1/statement.md`). Pure: no IO.
The payload is parsed only after its signature was verified.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.digest import Digest, canonical_json
from edgectl.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgectl.trust.keys import PrivateKey, PublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""Predicate type of a signature, as opposed to an attestation of something."""

MAX_BUNDLE_BYTES = 8 << 20
"""Largest bundle that is read; ours are some kilobytes, an ML-BOM can be larger."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What was signed: that `predicate`, of a type, is so about the subject."""

    subject: Digest
    predicate_type: str
    predicate: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope with its one signature, not yet verified."""

    payload: bytes
    payload_type: str
    signature: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def make(statement: Statement, key: PrivateKey) -> bytes:
    """The bundle of a statement signed by a key; equal for equal statements and keys."""
    payload = canonical_json(
        {
            "_type": STATEMENT_TYPE,
            # cosign writes the empty annotations too.
            "subject": [{"digest": {"sha256": statement.subject.hex}, "annotations": {}}],
            "predicateType": statement.predicate_type,
            "predicate": dict(statement.predicate),
        }
    )
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": key.public.hint},
                # No transparency log; said explicitly for parsers that require the field.
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            },
        }
    )


def verify(data: bytes, subject: Digest, keys: Sequence[PublicKey]) -> Statement:
    """The statement of a bundle, if one of `keys` signed it and it is about `subject` alone.

    Raises SignatureError: malformed, signed by none of the keys, or about something else. An empty
    list of keys accepts nothing.
    """
    envelope = parse(data)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SignatureError(f"the signed payload is {envelope.payload_type!r}, not a statement")
    signed = pae(envelope.payload_type, envelope.payload)
    if not any(key.verifies(envelope.signature, signed) for key in keys):
        raise SignatureError("signed by none of the accepted keys")
    return _statement(envelope.payload, subject)


def parse(data: bytes) -> Envelope:
    """The envelope of a bundle, its shape checked and nothing else; raises SignatureError."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise SignatureError(f"signature bundle is over {MAX_BUNDLE_BYTES} bytes")
    try:
        value = json.loads(data)
        if value["mediaType"] != BUNDLE_TYPE:
            raise ValueError(f"mediaType {value['mediaType']!r}")
        envelope = value["dsseEnvelope"]
        signatures = envelope["signatures"]
        # The bundle format demands exactly one.
        if len(signatures) != 1:
            raise ValueError(f"{len(signatures)} signatures")
        return Envelope(
            base64.b64decode(envelope["payload"], validate=True),
            str(envelope["payloadType"]),
            base64.b64decode(signatures[0]["sig"], validate=True),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SignatureError(f"malformed signature bundle: {error!r}") from error


def _statement(payload: bytes, subject: Digest) -> Statement:
    """Parse a verified payload and hold it to its subject."""
    try:
        value = json.loads(payload)
        if value["_type"] != STATEMENT_TYPE:
            raise ValueError(f"_type {value['_type']!r}")
        subjects = [str(item["digest"]["sha256"]) for item in value["subject"]]
        predicate = value.get("predicate") or {}
        predicate_type = value["predicateType"]
        if not isinstance(predicate, dict) or not isinstance(predicate_type, str):
            raise TypeError("predicate")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SignatureError(f"malformed signed statement: {error!r}") from error
    # One subject: with several, whoever signed may have meant another of them.
    if subjects != [subject.hex]:
        raise SignatureError(
            f"the signature is about {', '.join(subjects)[:200] or 'nothing'}, not {subject.hex}"
        )
    return Statement(subject, predicate_type, predicate)
