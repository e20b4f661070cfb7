"""Sigstore bundles: accepted by sigstore's own parsers, and refused when anything is off."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from sigstore.dsse import Envelope as SigstoreEnvelope
from sigstore.dsse import _verify as sigstore_verify
from sigstore_models.bundle.v1 import Bundle as SigstoreBundle

from edgectl.digest import Digest, canonical_json
from edgectl.errors import SignatureError
from edgectl.trust import bundle
from edgectl.trust.bundle import SIGN_PREDICATE, Statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.trust.keys import PrivateKey

SUBJECT = Digest.of(b"artifact")
OTHER = Digest.of(b"another")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def signed(key: PrivateKey, payload: bytes, payload_type: str = bundle.PAYLOAD_TYPE) -> bytes:
    """A bundle around any payload, rightly signed."""
    value = json.loads(bundle.make(Statement(SUBJECT, SIGN_PREDICATE, {}), key))
    signature = key.sign(bundle.pae(payload_type, payload))
    value["dsseEnvelope"] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return canonical_json(value)


def statement(subjects: list[Any], **changes: Any) -> bytes:
    value = {
        "_type": bundle.STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": SIGN_PREDICATE,
        "predicate": {},
    }
    return canonical_json(value | changes)


def test_sigstores_own_parsers_accept_a_bundle(key: PrivateKey) -> None:
    data = bundle.make(Statement(SUBJECT, SIGN_PREDICATE, {}), key)

    parsed = SigstoreBundle.from_json(data)
    assert parsed.media_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert parsed.verification_material.public_key is not None
    assert parsed.verification_material.public_key.hint == key.public.hint
    assert parsed.dsse_envelope is not None
    envelope = SigstoreEnvelope._from_json(parsed.dsse_envelope.to_json())
    public = key.public.key
    assert isinstance(public, ec.EllipticCurvePublicKey)
    payload = sigstore_verify(public, envelope)
    # What cosign v3 signs: cmd/cosign/cli/sign/sign.go, signDigestBundle.
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": SUBJECT.hex}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }


def test_the_pre_authentication_encoding_is_the_one_of_the_specification() -> None:
    """The example of dsse/protocol.md."""
    encoded = bundle.pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@settings(deadline=None)
@given(predicate=st.dictionaries(st.text(), JSON, max_size=4), kind=st.text(min_size=1))
def test_a_statement_comes_back_as_it_was_signed(
    key: PrivateKey, predicate: dict[str, Any], kind: str
) -> None:
    original = Statement(SUBJECT, kind, predicate)
    data = bundle.make(original, key)
    assert bundle.make(original, key) == data
    assert bundle.verify(data, SUBJECT, [key.public]) == original


@settings(deadline=None)
@given(st.data())
def test_a_changed_byte_changes_nothing_that_counts(key: PrivateKey, data: st.DataObject) -> None:
    original = Statement(SUBJECT, SIGN_PREDICATE, {"a": 1})
    good = bundle.make(original, key)
    position = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        assert bundle.verify(bytes(changed), SUBJECT, [key.public]) == original
    except SignatureError:
        return


def test_only_accepted_keys_count(key: PrivateKey, other_key: PrivateKey) -> None:
    data = bundle.make(Statement(SUBJECT, SIGN_PREDICATE, {}), key)
    assert bundle.verify(data, SUBJECT, [other_key.public, key.public]).subject == SUBJECT
    with pytest.raises(SignatureError, match="none of the accepted keys"):
        bundle.verify(data, SUBJECT, [other_key.public])
    with pytest.raises(SignatureError, match="none of the accepted keys"):
        bundle.verify(data, SUBJECT, [])


@pytest.mark.parametrize(
    "subjects",
    [
        [],
        [{"digest": {"sha256": OTHER.hex}}],
        [{"digest": {"sha256": SUBJECT.hex}}, {"digest": {"sha256": OTHER.hex}}],
        [{"digest": {"sha256": SUBJECT.hex}}, {"digest": {"sha256": SUBJECT.hex}}],
        [{"digest": {"sha512": SUBJECT.hex}}],
        [{"digest": {"sha256": SUBJECT.hex.upper()}}],
        [{"name": SUBJECT.hex}],
        [SUBJECT.hex],
        "x",
    ],
)
def test_a_rightly_signed_statement_about_anything_else_is_refused(
    key: PrivateKey, subjects: list[Any]
) -> None:
    with pytest.raises(SignatureError):
        bundle.verify(signed(key, statement(subjects)), SUBJECT, [key.public])


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": None},
        {"predicateType": ["a"]},
        {"predicate": "text"},
        {"subject": None},
    ],
)
def test_a_rightly_signed_but_malformed_statement_is_refused(
    key: PrivateKey, change: dict[str, Any]
) -> None:
    payload = statement([{"digest": {"sha256": SUBJECT.hex}}], **change)
    with pytest.raises(SignatureError, match="malformed signed statement"):
        bundle.verify(signed(key, payload), SUBJECT, [key.public])


def test_a_signature_over_another_payload_type_is_refused(key: PrivateKey) -> None:
    payload = statement([{"digest": {"sha256": SUBJECT.hex}}])
    with pytest.raises(SignatureError, match="not a statement"):
        bundle.verify(signed(key, payload, "application/json"), SUBJECT, [key.public])


def _two_signatures(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"] *= 2


def _no_signature(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["signatures"] = []


def _other_version(value: dict[str, Any]) -> None:
    value["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json"


def _message_signature(value: dict[str, Any]) -> None:
    value["messageSignature"] = value.pop("dsseEnvelope")


def _not_base64(value: dict[str, Any]) -> None:
    value["dsseEnvelope"]["payload"] += "!"


@pytest.mark.parametrize(
    "change", [_two_signatures, _no_signature, _other_version, _message_signature, _not_base64]
)
def test_a_bundle_of_another_shape_is_refused(
    key: PrivateKey, change: Callable[[dict[str, Any]], None]
) -> None:
    value = json.loads(bundle.make(Statement(SUBJECT, SIGN_PREDICATE, {}), key))
    change(value)
    with pytest.raises(SignatureError, match="malformed"):
        bundle.verify(canonical_json(value), SUBJECT, [key.public])


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_garbage_is_refused(key: PrivateKey, data: bytes) -> None:
    with pytest.raises(SignatureError, match="malformed"):
        bundle.verify(data, SUBJECT, [key.public])


def test_size_is_bounded(key: PrivateKey) -> None:
    with pytest.raises(SignatureError, match="over"):
        bundle.verify(b" " * (bundle.MAX_BUNDLE_BYTES + 1), SUBJECT, [key.public])
