"""Keys and their files: what cosign writes and reads."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.secret import SecretBox

from edgectl.errors import KeyFileError
from edgectl.trust import keyfile
from edgectl.trust.keys import (
    PrivateKey,
    PublicKey,
    generate,
    load_private,
    load_public,
    parse_public,
)

if TYPE_CHECKING:
    from pathlib import Path

SIGSTORE, COSIGN = "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"


def content(pem: bytes) -> dict[str, Any]:
    """The JSON inside a private key file."""
    value: dict[str, Any] = json.loads(base64.b64decode(b"".join(pem.splitlines()[1:-1])))
    return value


def pem(value: object, label: str = SIGSTORE) -> bytes:
    body = base64.b64encode(json.dumps(value).encode()).decode()
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


@settings(max_examples=8, deadline=None)
@given(password=st.binary(max_size=100))
def test_what_is_encrypted_opens_with_the_same_password(key: PrivateKey, password: bytes) -> None:
    der = keyfile.decrypt(keyfile.encrypt(key, password), password, "k")
    opened = serialization.load_der_private_key(der, None)
    assert isinstance(opened, ec.EllipticCurvePrivateKey)
    assert PrivateKey(opened).public == key.public


def test_a_file_opens_by_cosigns_recipe_done_by_hand(key: PrivateKey) -> None:
    """go-securesystemslib: scrypt with N=65536, r=8, p=1, then secretbox around PKCS#8."""
    file = keyfile.encrypt(key, b"pw")
    value = content(file)

    assert file.startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    assert max(map(len, file.splitlines()[1:-1])) == 64
    assert value["kdf"]["name"] == "scrypt"
    assert value["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert value["cipher"]["name"] == "nacl/secretbox"
    derived = Scrypt(base64.b64decode(value["kdf"]["salt"]), 32, 65536, 8, 1).derive(b"pw")
    der = SecretBox(derived).decrypt(
        base64.b64decode(value["ciphertext"]), base64.b64decode(value["cipher"]["nonce"])
    )
    opened = serialization.load_der_private_key(der, None)
    assert opened.public_key() == key.public.key


def test_the_older_label_and_parameters_are_read(key: PrivateKey, tmp_path: Path) -> None:
    der = key.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    derived = Scrypt(b"s" * 32, 32, 32768, 8, 1).derive(b"pw")
    sealed = SecretBox(derived).encrypt(der, b"n" * 24).ciphertext
    value = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": 32768, "r": 8, "p": 1},
            "salt": base64.b64encode(b"s" * 32).decode(),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(b"n" * 24).decode()},
        "ciphertext": base64.b64encode(sealed).decode(),
    }
    path = tmp_path / "old.key"
    path.write_bytes(pem(value, COSIGN))

    assert load_private(path, b"pw").public == key.public


@pytest.mark.parametrize(
    "params",
    [
        {"N": 1 << 30, "r": 8, "p": 1},
        {"N": 65536, "r": 1 << 20, "p": 1},
        {"N": 65536, "r": 8, "p": 1 << 20},
        {"N": 2, "r": 8, "p": 1},
        {"N": "65536", "r": 8, "p": 1},
        {"N": [], "r": 8, "p": 1},
        {},
    ],
)
def test_a_file_cannot_choose_what_opening_it_costs(key: PrivateKey, params: object) -> None:
    value = content(keyfile.encrypt(key, b""))
    value["kdf"]["params"] = params
    with pytest.raises(KeyFileError, match="not a well-formed cosign key"):
        keyfile.decrypt(pem(value), b"", "hostile.key")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not pem",
        b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n!!!\n",
        pem([]),
        pem({"kdf": 1}),
        pem(None),
        b"\x00\xff" * 100,
        pem({}, "RSA PRIVATE KEY"),
    ],
)
def test_what_is_no_key_file_is_refused_clearly(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "k.key"
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match=r"k\.key"):
        load_private(path, b"")


def test_a_public_key_does_not_sign(key: PrivateKey, tmp_path: Path) -> None:
    _, public = keyfile.write_key_pair(tmp_path / "a", key, b"pw")
    with pytest.raises(KeyFileError, match="public key") as caught:
        load_private(public, b"pw")
    assert ".key" in (caught.value.hint or "")


def test_a_wrong_password_is_an_error_with_a_next_step(key: PrivateKey, tmp_path: Path) -> None:
    private, _ = keyfile.write_key_pair(tmp_path / "a", key, b"right")
    with pytest.raises(KeyFileError, match="password does not open") as caught:
        load_private(private, b"wrong")
    assert "EDGECTL_KEY_PASSWORD" in (caught.value.hint or "")


def test_a_pair_is_written_privately_and_never_over_another(
    key: PrivateKey, other_key: PrivateKey, tmp_path: Path
) -> None:
    private, public = keyfile.write_key_pair(tmp_path / "new" / "cosign", key, b"pw")

    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert load_private(private, b"pw").public == load_public(public) == key.public
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(KeyFileError, match="there already"):
        keyfile.write_key_pair(tmp_path / "new" / "cosign", other_key, b"pw")
    private.unlink()
    with pytest.raises(KeyFileError, match="there already"):
        keyfile.write_key_pair(tmp_path / "new" / "cosign", other_key, b"pw")
    assert public.read_bytes() == before[1]
    assert sorted(p.name for p in private.parent.iterdir()) == ["cosign.pub"]


@pytest.mark.parametrize(
    "made",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "p521", "ed25519", "rsa"],
)
def test_every_kind_of_key_signs_and_verifies(made: Any, other_key: PrivateKey) -> None:
    key = PrivateKey(made)
    signature = key.sign(b"data")

    assert key.sign(b"data") == signature
    assert key.public.verifies(signature, b"data")
    assert parse_public(key.public.pem).verifies(signature, b"data")
    assert not key.public.verifies(signature, b"Data")
    assert not key.public.verifies(b"", b"data")
    assert not other_key.public.verifies(signature, b"data")


def test_a_key_is_named_by_the_hash_of_its_public_half(key: PrivateKey) -> None:
    expected = hashlib.sha256(key.public.der).digest()
    assert key.public.fingerprint == expected.hex()
    assert key.public.hint == base64.b64encode(expected).decode()
    assert repr(key) == f"PrivateKey(public={expected.hex()})"
    assert generate().public.fingerprint != key.public.fingerprint


@pytest.mark.parametrize(
    "made",
    [
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        dsa.generate_private_key(2048).public_key(),
    ],
    ids=["rsa1024", "secp256k1", "dsa"],
)
def test_weak_and_foreign_keys_are_refused(made: Any) -> None:
    data = made.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(KeyFileError, match=r"weak|not supported|cannot verify"):
        parse_public(data, "k.pub")


def test_a_private_key_is_not_taken_for_a_public_one(key: PrivateKey, tmp_path: Path) -> None:
    private, _ = keyfile.write_key_pair(tmp_path / "a", key, b"")
    with pytest.raises(KeyFileError, match="is a private key"):
        load_public(private)


@pytest.mark.parametrize("data", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\nAA==\n"])
def test_what_is_no_public_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "k.pub"
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match="not a PEM public key"):
        load_public(path)


def test_key_files_are_read_bounded(tmp_path: Path) -> None:
    path = tmp_path / "huge.pub"
    path.write_bytes(b"x" * (1 << 20))
    with pytest.raises(KeyFileError, match="too large"):
        load_public(path)
    with pytest.raises(KeyFileError, match="cannot read"):
        load_public(tmp_path / "absent.pub")


def test_public_keys_compare_by_value(key: PrivateKey) -> None:
    assert parse_public(key.public.pem) == PublicKey(key.public.key)
