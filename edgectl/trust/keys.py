"""Signing keys: load, generate, sign and verify.

ECDSA on P-256 is what edgectl generates, as cosign does; P-384, P-521, Ed25519 and RSA keys made
elsewhere are accepted, each with the hash that cosign picks for it. The private key file format is
in `edgectl.trust.keyfile`, imported only to open or write one: a device verifies without PyNaCl.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from edgectl.errors import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

MAX_KEY_BYTES = 64 << 10
"""Largest key file that is read: an RSA-16384 key is a fifth of it."""
_LEAST_RSA_BITS = 2048

PublicKeyType = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
PrivateKeyType = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with."""

    key: PublicKeyType

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo (RFC 5280), DER."""
        return self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def pem(self) -> bytes:
        """The file form: PEM `PUBLIC KEY`."""
        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def fingerprint(self) -> str:
        """sha256 of the DER form in hex: names the key to people."""
        return sha256(self.der).hexdigest()

    @property
    def hint(self) -> str:
        """The same in base64: how a sigstore bundle says which key signed it."""
        return base64.b64encode(sha256(self.der).digest()).decode()

    @property
    def algorithm(self) -> str:
        """The algorithm in words, for people."""
        match self.key:
            case ec.EllipticCurvePublicKey():
                return f"ECDSA {self.key.curve.name}"
            case rsa.RSAPublicKey():
                return f"RSA {self.key.key_size}"
            case _:
                return "Ed25519"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's over `data`."""
        try:
            match self.key:
                case ec.EllipticCurvePublicKey():
                    self.key.verify(signature, data, ec.ECDSA(_curve_hash(self.key)))
                case rsa.RSAPublicKey():
                    self.key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
                case _:
                    self.key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. Its `repr` shows nothing of it."""

    key: PrivateKeyType

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.fingerprint})"

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return PublicKey(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign; the same bytes give the same signature (ECDSA nonces after RFC 6979).

        So signing an artifact again adds nothing to the registry.
        """
        match self.key:
            case ec.EllipticCurvePrivateKey():
                algorithm = ec.ECDSA(_curve_hash(self.key), deterministic_signing=True)
                return self.key.sign(data, algorithm)
            case rsa.RSAPrivateKey():
                return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return self.key.sign(data)


def generate() -> PrivateKey:
    """A new ECDSA P-256 key."""
    return PrivateKey(ec.generate_private_key(ec.SECP256R1()))


def load_public(path: Path) -> PublicKey:
    """Read a PEM public key file; raises KeyFileError."""
    return parse_public(read_key_file(path), str(path))


def parse_public(pem: bytes, name: str = "public key") -> PublicKey:
    """Parse a PEM `PUBLIC KEY`; `name` says where it came from in errors. Raises KeyFileError."""
    if b"PRIVATE KEY" in pem:
        raise KeyFileError(
            f"{name} is a private key, not a public one",
            hint="give the .pub file, and keep the private key away from devices",
        )
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{name} is not a PEM public key",
            hint="give the .pub file that was made with the signing key (edgectl keys generate)",
        ) from error
    return PublicKey(_accepted(key, name))


def load_private(path: Path, password: bytes) -> PrivateKey:
    """Open an encrypted private key file of cosign's or edgectl's.

    Raises KeyFileError: unreadable, not such a file, or the password does not open it.
    """
    from edgectl.trust.keyfile import decrypt

    return parse_pkcs8(decrypt(read_key_file(path), password, str(path)), str(path))


def parse_pkcs8(der: bytes, name: str) -> PrivateKey:
    """Parse the DER that a private key file holds; raises KeyFileError."""
    try:
        key = serialization.load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{name} does not hold a PKCS#8 private key") from error
    if not isinstance(key, PrivateKeyType):
        raise KeyFileError(f"{name} holds a {type(key).__name__}, which cannot sign here")
    _accepted(key.public_key(), name)
    return PrivateKey(key)


def read_key_file(path: Path) -> bytes:
    """The bytes of a key file, bounded; raises KeyFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(
            f"cannot read the key {path}: {error.strerror}",
            hint="name the right file; a pair that never was is made by "
            f"edgectl keys generate --output-key-prefix {path.with_suffix('')}",
        ) from error
    if len(data) > MAX_KEY_BYTES:
        raise KeyFileError(f"{path} is too large to be a key")
    return data


def _accepted(key: object, name: str) -> PublicKeyType:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise KeyFileError(f"{name}: RSA with {key.key_size} bits is too weak")
    if isinstance(key, ec.EllipticCurvePublicKey):
        try:
            _curve_hash(key)
        except KeyError as error:
            raise KeyFileError(f"{name}: curve {key.curve.name} is not supported") from error
    if not isinstance(key, PublicKeyType):
        raise KeyFileError(f"{name}: a {type(key).__name__} cannot verify signatures here")
    return key


def _curve_hash(
    key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey,
) -> hashes.HashAlgorithm:
    # sigstore/sigstore pkg/signature/algorithm_registry.go: one hash to a curve.
    return {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }[key.curve.name]
