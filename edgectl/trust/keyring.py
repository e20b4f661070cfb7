"""The private keys of the TUF roles in a trust directory.

`<role>.key`, `<role>-2.key` and so on, in cosign's encrypted PEM, each beside its `.pub`. Which of
them sign now is what the root metadata says: keys are found by their TUF key id, so a rotation only
adds files and an interrupted one leaves nothing wrong behind.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from securesystemslib.signer import CryptoSigner, SSlibKey

from edgectl.errors import KeyFileError
from edgectl.trust.keyfile import write_key_pair
from edgectl.trust.keys import generate, load_private, load_public
from edgectl.trust.policy import ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from securesystemslib.signer import Signer

    Password = Callable[[], bytes]


class Keyring:
    """The keys in one directory; the password is asked for once, when a key is first opened."""

    def __init__(self, directory: Path, password: Password | None) -> None:
        self.directory = directory
        self._ask = password
        self._password: bytes | None = None
        self._opened: dict[str, CryptoSigner] = {}

    def generate(self, role: str) -> CryptoSigner:
        """Make a new key for a role under the next free name; raises KeyFileError."""
        key = generate()
        write_key_pair(self._free(role), key, self._secret())
        return self._remember(CryptoSigner(key.key))

    def of_role(self, role: str) -> list[CryptoSigner]:
        """Every key of a role that is there, opened; raises KeyFileError."""
        return [self._open(path) for path in self._files(role)]

    def has(self, keyid: str) -> bool:
        """Whether the private key is there; its file is not opened."""
        return keyid in self._opened or self._find(keyid) is not None

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        """Those of the keys that are there, opened; raises KeyFileError."""
        found: list[Signer] = []
        for keyid in keyids:
            path = None if keyid in self._opened else self._find(keyid)
            if path is not None:
                self._open(path)
            if keyid in self._opened:
                found.append(self._opened[keyid])
        return found

    def _open(self, path: Path) -> CryptoSigner:
        return self._remember(CryptoSigner(load_private(path, self._secret()).key))

    def _remember(self, signer: CryptoSigner) -> CryptoSigner:
        self._opened[signer.public_key.keyid] = signer
        return signer

    def _find(self, keyid: str) -> Path | None:
        for role in ROLES:
            for path in self._files(role):
                public = load_public(path.with_suffix(".pub"))
                if SSlibKey.from_crypto(public.key).keyid == keyid:
                    return path
        return None

    def _files(self, role: str) -> list[Path]:
        numbered = re.compile(rf"{role}(?:-(\d+))?\.key")
        found = {
            int(match[1] or 1): path
            for path in self.directory.glob(f"{role}*.key")
            if (match := numbered.fullmatch(path.name))
        }
        return [found[number] for number in sorted(found)]

    def _free(self, role: str) -> Path:
        names = (role if number == 1 else f"{role}-{number}" for number in count(1))
        # A public half alone is a key kept elsewhere, or what a killed run left: not ours.
        return next(
            self.directory / name
            for name in names
            if not any((self.directory / f"{name}.{end}").exists() for end in ("key", "pub"))
        )

    def _secret(self) -> bytes:
        if self._password is None:
            if self._ask is None:
                raise KeyFileError(
                    f"a password is needed to open the keys in {self.directory}",
                    hint="give it in EDGECTL_KEY_PASSWORD or in a password file",
                )
            self._password = self._ask()
        return self._password
