"""Withheld fields: personal data that stays beside the log, and what the log keeps of them.

For each entry with personal data, its leaf holds for every withheld field the commitment
`SHA-256(salt || path || 0x00 || value)` with 32 random bytes of salt, and the SHA-256 of the sealed box. The box
(AES-256-GCM) holds the salt and the values, closed with the *data key* of the person concerned. Data keys are kept
wrapped (AES key wrap, RFC 3394) by one key-encryption key, which is not in the database.

So whoever has the box and the key can show that a value is the one that was logged; when the data key is destroyed,
neither the value nor the salt can be had again, a guess of the value cannot be tested against the commitment
either, and every leaf, hash and proof stays as it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from audit.document import commitment
from govern.errors import GovernError

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # the length that AES-GCM is made for (NIST SP 800-38D 5.2.1.1)
_KEY_ID_BYTES: Final = 16


class SealBroken(GovernError):
    """A sealed box or wrapped key that does not open: changed, or closed with another key."""

    code = "seal-broken"


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one person's data. `id` is random: it names the key in leaves and tells nothing of the person."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is kept of an entry's withheld fields: `box` beside the log, the rest in the leaf."""

    key_id: str
    box: bytes
    commitments: dict[str, str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.box).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    salt: bytes
    values: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    secret: bytes = field(repr=False)

    def new_data_key(self) -> DataKey:
        return DataKey(os.urandom(_KEY_ID_BYTES).hex(), os.urandom(KEY_BYTES))

    def wrap(self, key: DataKey, subject: str) -> bytes:
        """72 bytes. The wrapping covers the key's id and subject, so that neither can be exchanged in the store."""
        return aes_key_wrap(self.secret, key.secret + _binding(key.id, subject))

    def unwrap(self, wrapped: bytes, key_id: str, subject: str) -> DataKey:
        """Raises SealBroken: the wrapped key, its id or its subject was changed, or another key wrapped it."""
        try:
            content = aes_key_unwrap(self.secret, wrapped)
        except (InvalidUnwrap, ValueError):
            content = b""
        if content[KEY_BYTES:] != _binding(key_id, subject):
            raise SealBroken(
                f"data key {key_id}",
                why="it does not open with this encryption key, or its row was changed",
                fix="name the key folder that this log was written with; else `govern audit verify --db`",
            )
        return DataKey(key_id, content[:KEY_BYTES])


def seal(values: Mapping[str, bytes], key: DataKey) -> Sealed:
    salt = os.urandom(SALT_BYTES)
    nonce = os.urandom(_NONCE_BYTES)
    content = msgspec.msgpack.encode((salt, dict(values)))
    return Sealed(
        key_id=key.id,
        box=nonce + AESGCM(key.secret).encrypt(nonce, content, key.id.encode()),
        commitments={path: commitment(salt, path, value) for path, value in values.items()},
    )


def forget(values: Mapping[str, bytes], key_id: str) -> Sealed:
    """Commitments to values that may not be kept, under an erased key's id: salt and secret are thrown away."""
    return seal(values, DataKey(key_id, os.urandom(KEY_BYTES)))


def unseal(box: bytes, key: DataKey) -> Opened:
    """Raises SealBroken: the box was changed, or another key closed it."""
    try:
        content = AESGCM(key.secret).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], key.id.encode())
    except (InvalidTag, ValueError):
        raise SealBroken(
            f"sealed box under data key {key.id}",
            why="it does not open: its bytes were changed",
            fix="`govern audit verify --db` names the entry; restore its row from a backup",
        ) from None
    salt, values = msgspec.msgpack.decode(content, type=tuple[bytes, dict[str, bytes]])
    return Opened(salt, values)


def _binding(key_id: str, subject: str) -> bytes:
    return hashlib.sha256(f"{key_id}\x00{subject}".encode()).digest()
