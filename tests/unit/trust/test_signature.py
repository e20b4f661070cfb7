"""Signatures as referrers: what verify accepts, and each thing that it has to refuse."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from edgectl.digest import canonical_json
from edgectl.errors import IntegrityError, NotFoundError, SignatureError
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from edgectl.oci.layout import LayoutStore
from edgectl.oci.referrers import fallback_tag
from edgectl.trust import bundle, referrer, signature
from edgectl.trust.attestation import attest, read_attestations
from edgectl.trust.bundle import BUNDLE_TYPE, SIGN_PREDICATE, Statement
from edgectl.trust.tree import verify_tree
from tests.unit.trust.artifacts import push_layer, push_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.oci.store import Repository, Store
    from edgectl.trust.keys import PrivateKey

SLSA = "https://slsa.dev/provenance/v1"


@pytest.fixture
def repository(store: Store) -> Repository:
    return store.repository("models/digits")


@pytest.fixture
def artifact(repository: Repository) -> Descriptor:
    return push_manifest(repository, push_layer(repository, b"weights", "model.onnx"))


@pytest.fixture
def another(repository: Repository) -> Descriptor:
    return push_manifest(repository, push_layer(repository, b"other weights", "model.onnx"))


def test_a_signature_is_accepted(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    signature.sign(repository, artifact, key)
    assert signature.verify(repository, artifact, [key.public]) == Statement(
        artifact.digest, SIGN_PREDICATE, {}
    )


def test_the_referrer_is_the_one_that_cosign_writes(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    """sigstore/cosign pkg/oci/remote/write.go, WriteReferrer; no creation time."""
    signed = signature.sign(repository, artifact, key)

    manifest = parse_manifest(repository.read_manifest(str(signed.digest))[1])
    assert isinstance(manifest, Manifest)
    assert manifest.artifact_type == BUNDLE_TYPE
    assert manifest.config.media_type == "application/vnd.oci.empty.v1+json"
    assert [layer.media_type for layer in manifest.layers] == [BUNDLE_TYPE]
    assert manifest.subject == Descriptor(artifact.media_type, artifact.digest, artifact.size)
    assert manifest.annotations == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": SIGN_PREDICATE,
    }
    assert [found.digest for found in repository.referrers(artifact.digest, BUNDLE_TYPE)] == [
        signed.digest
    ]


def test_signing_again_adds_nothing(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    first = signature.sign(repository, artifact, key)
    assert signature.sign(repository, artifact, key) == first
    assert len(repository.referrers(artifact.digest)) == 1


def test_no_signature_is_refused(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    with pytest.raises(SignatureError, match="is not signed") as caught:
        signature.verify(repository, artifact, [key.public])
    assert str(artifact.digest) in caught.value.message
    assert caught.value.hint


def test_a_signature_by_another_key_is_refused(
    repository: Repository, artifact: Descriptor, key: PrivateKey, other_key: PrivateKey
) -> None:
    signature.sign(repository, artifact, other_key)
    with pytest.raises(SignatureError, match="none of the accepted keys"):
        signature.verify(repository, artifact, [key.public])


def test_a_signature_by_another_key_beside_ours_does_no_harm(
    repository: Repository, artifact: Descriptor, key: PrivateKey, other_key: PrivateKey
) -> None:
    signature.sign(repository, artifact, other_key)
    signature.sign(repository, artifact, key)
    assert signature.verify(repository, artifact, [key.public]).subject == artifact.digest
    assert signature.verify(repository, artifact, [other_key.public]).subject == artifact.digest


def test_a_signature_of_another_digest_is_refused(
    repository: Repository, artifact: Descriptor, another: Descriptor, key: PrivateKey
) -> None:
    stolen = bundle.make(Statement(another.digest, SIGN_PREDICATE, {}), key)
    referrer.attach(repository, artifact, stolen, SIGN_PREDICATE)
    with pytest.raises(SignatureError, match="the signature is about"):
        signature.verify(repository, artifact, [key.public])


def test_an_attestation_is_no_signature(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    attest(repository, artifact, SLSA, {"builder": "x"}, key)
    with pytest.raises(SignatureError, match="is not a signature"):
        signature.verify(repository, artifact, [key.public])


def test_an_attestation_that_is_labelled_a_signature_is_none(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    """The annotation is not signed: only the statement's own predicate type counts."""
    posing = bundle.make(Statement(artifact.digest, SLSA, {}), key)
    referrer.attach(repository, artifact, posing, SIGN_PREDICATE)
    with pytest.raises(SignatureError, match="is not a signature"):
        signature.verify(repository, artifact, [key.public])


def test_a_tampered_payload_is_refused(
    repository: Repository, artifact: Descriptor, another: Descriptor, key: PrivateKey
) -> None:
    value = json.loads(bundle.make(Statement(another.digest, SIGN_PREDICATE, {}), key))
    payload = base64.b64decode(value["dsseEnvelope"]["payload"])
    payload = payload.replace(another.digest.hex.encode(), artifact.digest.hex.encode())
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    referrer.attach(repository, artifact, canonical_json(value), SIGN_PREDICATE)
    with pytest.raises(SignatureError, match="none of the accepted keys"):
        signature.verify(repository, artifact, [key.public])


def test_an_empty_list_of_keys_accepts_nothing(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    signature.sign(repository, artifact, key)
    with pytest.raises(SignatureError, match="no public key was given"):
        signature.verify(repository, artifact, [])
    with pytest.raises(SignatureError, match="no public key was given"):
        read_attestations(repository, artifact, [])


def test_a_referrer_that_holds_no_bundle_is_refused(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    layer = push_layer(repository, b"no bundle", "x")
    manifest = Manifest(layer, (layer,), artifact_type=BUNDLE_TYPE, subject=artifact)
    repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)
    with pytest.raises(SignatureError, match="holds something else"):
        signature.verify(repository, artifact, [key.public])


def test_a_bundle_that_declares_too_much_is_not_read(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    layer = push_layer(repository, b"{}", "x")
    huge = Descriptor(BUNDLE_TYPE, layer.digest, bundle.MAX_BUNDLE_BYTES + 1)
    manifest = Manifest(layer, (huge,), artifact_type=BUNDLE_TYPE, subject=artifact)
    repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)
    with pytest.raises(SignatureError, match="is over"):
        signature.verify(repository, artifact, [key.public])


def attach_before(
    repository: Repository, artifact: Descriptor, attach: Callable[[int], Descriptor]
) -> Descriptor:
    """Attach other referrers until one is listed before all that are there; returns that one."""
    before = {found.digest for found in repository.referrers(artifact.digest)}
    for number in range(200):
        other = attach(number)
        if all(other.digest < digest for digest in before):
            assert repository.referrers(artifact.digest)[0].digest == other.digest
            return other
        repository.delete(str(other.digest))
    raise AssertionError("no digest came before the others")


def test_a_referrer_that_holds_no_bundle_hides_no_good_one(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    signature.sign(repository, artifact, key)
    attest(repository, artifact, SLSA, {"builder": "x"}, key)
    subject = Descriptor(artifact.media_type, artifact.digest, artifact.size)

    def attach(number: int) -> Descriptor:
        manifest = Manifest(
            EMPTY_CONFIG,
            (EMPTY_CONFIG,),
            artifact_type=BUNDLE_TYPE,
            subject=subject,
            annotations={"number": str(number)},
        )
        return repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)

    attach_before(repository, artifact, attach)
    assert signature.verify(repository, artifact, [key.public]).subject == artifact.digest
    assert len(read_attestations(repository, artifact, [key.public])) == 1
    assert verify_tree(repository, artifact, [key.public]).bundles == 3


@pytest.mark.parametrize("what", ["manifest", "bundle"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_referrer_that_cannot_be_read_hides_no_good_one(
    what: str, damage: str, tmp_path: Path, key: PrivateKey, other_key: PrivateKey
) -> None:
    repository = LayoutStore(tmp_path).repository("models/digits")
    artifact = push_manifest(repository, push_layer(repository, b"weights", "model.onnx"))
    signature.sign(repository, artifact, key)
    attest(repository, artifact, SLSA, {"builder": "x"}, key)
    other = attach_before(
        repository,
        artifact,
        lambda number: attest(repository, artifact, SLSA, {"builder": number}, other_key),
    )
    digest = other.digest
    if what == "bundle":
        _, digest = (
            blob.digest for blob in referrer.blobs(repository.read_manifest(str(digest))[1])
        )
    path = tmp_path / "models/digits/blobs/sha256" / digest.hex
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    assert signature.verify(repository, artifact, [key.public]).subject == artifact.digest
    assert len(read_attestations(repository, artifact, [key.public])) == 1
    # Without a good one it says what is wrong with those there are.
    kind = NotFoundError if damage == "gone" else IntegrityError
    with pytest.raises(kind, match="no acceptable signature") as caught:
        signature.verify(repository, artifact, [other_key.public])
    assert digest.hex in caught.value.message
    assert "none of the accepted keys" in caught.value.message
    assert caught.value.hint


def test_a_malformed_referrer_hides_no_good_one(tmp_path: Path, key: PrivateKey) -> None:
    repository = LayoutStore(tmp_path).repository("models/digits")
    artifact = push_manifest(repository, push_layer(repository, b"weights", "model.onnx"))
    signed = signature.sign(repository, artifact, key)
    data = b'{"layers": 1}'
    with pytest.raises(SignatureError, match="malformed OCI manifest"):
        referrer.blobs(data)
    malformed = Descriptor.of(data, OCI_MANIFEST, artifact_type=BUNDLE_TYPE)
    repository.push_blob(malformed, data)
    good = Descriptor(signed.media_type, signed.digest, signed.size, artifact_type=BUNDLE_TYPE)
    repository.push_manifest(
        Index((malformed, good)).to_bytes(), OCI_INDEX, tag=fallback_tag(artifact.digest)
    )
    assert signature.verify(repository, artifact, [key.public]).subject == artifact.digest


def test_a_flood_of_referrers_is_refused(
    repository: Repository,
    artifact: Descriptor,
    key: PrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(referrer, "MAX_REFERRERS", 3)
    for number in range(4):
        attest(repository, artifact, f"https://example.com/{number}", {}, key)
    with pytest.raises(SignatureError, match="4 signature bundles"):
        signature.verify(repository, artifact, [key.public])


def test_attestations_come_back_by_type_and_key(
    repository: Repository, artifact: Descriptor, key: PrivateKey, other_key: PrivateKey
) -> None:
    bom = "https://cyclonedx.org/bom"
    signature.sign(repository, artifact, key)
    attest(repository, artifact, SLSA, {"a": [1, "ü"]}, key)
    attest(repository, artifact, bom, {"b": None}, key)
    attest(repository, artifact, bom, {"forged": True}, other_key)

    assert read_attestations(repository, artifact, [key.public], SLSA) == [
        Statement(artifact.digest, SLSA, {"a": [1, "ü"]})
    ]
    found = read_attestations(repository, artifact, [key.public])
    assert {statement.predicate_type for statement in found} == {SLSA, bom}
    assert read_attestations(repository, artifact, [other_key.public], SLSA) == []


def test_an_attestation_cannot_be_made_a_signature(
    repository: Repository, artifact: Descriptor, key: PrivateKey
) -> None:
    with pytest.raises(ValueError, match="not an attestation"):
        attest(repository, artifact, SIGN_PREDICATE, {}, key)
