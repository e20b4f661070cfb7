"""The encrypted private key file of cosign, and writing key pairs.

PEM around JSON: PKCS#8 sealed with nacl/secretbox under a key that scrypt makes of the password
(sigstore/cosign `pkg/cosign/keys.go` over go-securesystemslib `encrypted/encrypted.go`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import textwrap
from hashlib import scrypt
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization

from edgectl.errors import KeyFileError
from edgectl.oci.filesystem import storage_error, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.trust.keys import PrivateKey

_LABEL = "ENCRYPTED SIGSTORE PRIVATE KEY"
_LABELS = (_LABEL, "ENCRYPTED COSIGN PRIVATE KEY")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s([A-Za-z0-9+/=\s]+)-----END \1-----")
_SCRYPT_N = 1 << 16
# Legacy, Standard and OWASP of go-securesystemslib. Nothing else is run: a hostile file would
# otherwise choose how much memory and time opening it takes.
_ACCEPTED_N = (1 << 15, 1 << 16, 1 << 17)
_SCRYPT_R, _SCRYPT_P = 8, 1
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 32, 24, 32
_MAX_SALT_BYTES = 64


def encrypt(key: PrivateKey, password: bytes) -> bytes:
    """The PEM file of a private key; the password may be empty, as with cosign."""
    from nacl.secret import SecretBox

    der = key.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    box = SecretBox(_derive(password, salt, _SCRYPT_N))
    value = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": _SCRYPT_N, "r": _SCRYPT_R, "p": _SCRYPT_P},
            "salt": base64.b64encode(salt).decode(),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(box.encrypt(der, nonce).ciphertext).decode(),
    }
    body = base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    lines = "\n".join(textwrap.wrap(body, 64))
    return f"-----BEGIN {_LABEL}-----\n{lines}\n-----END {_LABEL}-----\n".encode()


def decrypt(pem: bytes, password: bytes, name: str) -> bytes:
    """The PKCS#8 DER in a private key file; `name` is for errors. Raises KeyFileError."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    match = _PEM.search(pem)
    if match is None:
        raise KeyFileError(f"{name} is not a PEM key", hint="make one with `edgectl keys generate`")
    label = match[1].decode()
    if label == "PUBLIC KEY":
        raise KeyFileError(
            f"{name} is a public key, which signs nothing", hint="give the .key file"
        )
    if label not in _LABELS:
        raise KeyFileError(
            f"{name} is a {label}, not an encrypted cosign key",
            hint="import it with `cosign import-key-pair --key FILE`",
        )
    salt, n, nonce, ciphertext = _parse(match[2], name)
    try:
        return SecretBox(_derive(password, salt, n)).decrypt(ciphertext, nonce)
    except CryptoError as error:
        raise KeyFileError(
            f"the password does not open {name}",
            hint="give the right one in EDGECTL_KEY_PASSWORD or a password file",
        ) from error


def _parse(body: bytes, name: str) -> tuple[bytes, int, bytes, bytes]:
    """Salt, scrypt N, nonce and ciphertext of the JSON inside."""
    try:
        value: dict[str, Any] = json.loads(base64.b64decode(b"".join(body.split()), validate=True))
        kdf, cipher = value["kdf"], value["cipher"]
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
            raise ValueError(f"{kdf['name']!r} with {cipher['name']!r}")
        params = kdf["params"]
        n, r, p = params["N"], params["r"], params["p"]
        if n not in _ACCEPTED_N or (r, p) != (_SCRYPT_R, _SCRYPT_P):
            raise ValueError(f"scrypt with N={n!r}, r={r!r}, p={p!r} is not one that cosign uses")
        salt = base64.b64decode(kdf["salt"], validate=True)
        nonce = base64.b64decode(cipher["nonce"], validate=True)
        ciphertext = base64.b64decode(value["ciphertext"], validate=True)
        if len(salt) > _MAX_SALT_BYTES or len(nonce) != _NONCE_BYTES:
            raise ValueError("salt or nonce of a wrong length")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KeyFileError(f"{name} is not a well-formed cosign key: {error}") from error
    return salt, int(n), nonce, ciphertext


def _derive(password: bytes, salt: bytes, n: int) -> bytes:
    # scrypt needs 128*N*r bytes, and OpenSSL a little more.
    memory = 128 * n * _SCRYPT_R + (1 << 20)
    return scrypt(
        password, salt=salt, n=n, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=memory, dklen=_KEY_BYTES
    )


def write_key_pair(prefix: Path, key: PrivateKey, password: bytes) -> tuple[Path, Path]:
    """Write `<prefix>.key` (mode 0600) and `<prefix>.pub`; returns both paths.

    Neither is ever overwritten: raises KeyFileError if one is there, StorageError if the
    directory cannot be written.
    """
    private = prefix.with_name(f"{prefix.name}.key")
    public = prefix.with_name(f"{prefix.name}.pub")
    for path in (private, public):
        if path.exists():
            raise KeyFileError(
                f"{path} is there already",
                hint="keys are never overwritten: move it away or choose another prefix",
            )
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        # The private key last: where it is, its public half is.
        _write_new(public, key.public.pem, 0o644)
        _write_new(private, encrypt(key, password), 0o600)
    except FileExistsError as error:
        raise KeyFileError(f"{error.filename} appeared while keys were being made") from error
    except OSError as error:
        raise storage_error(error, f"writing the keys {prefix}") from error
    return private, public


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that holds all of `data` or is not there; raises FileExistsError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike rename, fails if the name is taken
    finally:
        temporary.unlink()
    sync_directory(path.parent)
