"""The key of keyed hashes and tokens, and what is made with it.

From the one key that an operator keeps, HKDF-SHA256 derives one for each purpose. The key is held here and nowhere
else: no representation, record, log line or error shows it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from govern.errors import BadInput, ConfigError
from govern.mirror.redaction.config import RedactionConfig

#: As much as HMAC-SHA-256 can use; less would be the weak link.
KEY_BYTES_MIN: Final = 32
#: 128 bits: among 10^12 values, two share a hash with a chance of 10^-15.
HASH_CHARS: Final = 32
TOKEN_PREFIX: Final = "tok_"  # noqa: S105 - no password
DIGEST_PREFIX: Final = "hmac-sha256:"
#: Beyond this a float is not an exact integer.
_EXACT: Final = 2**53


class Keys:
    """Keyed hashes, tokens and digests."""

    __slots__ = ("_digest", "_hash", "_tokens")

    def __init__(self, key: bytes) -> None:
        def derived(purpose: str, length: int) -> bytes:
            info = f"govern redaction {purpose} 1".encode()
            return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)

        self._hash = hmac.new(derived("hash", 32), digestmod=hashlib.sha256)
        self._digest = derived("digest", 32)
        self._tokens = AESSIV(derived("token", 64))

    def hash(self, value: object) -> str:
        """The value's keyed hash: equal values, equal hashes, whether they came as text or as a number."""
        keyed = self._hash.copy()
        keyed.update(plain(value))
        return keyed.hexdigest()[:HASH_CHARS]

    def token(self, value: object) -> str:
        """The value's token (AES-SIV, RFC 5297): equal values, equal tokens; `value_of` gives it back."""
        known = b"b" + value if isinstance(value, bytes) else b"j" + msgspec.json.encode(value, order="deterministic")
        return TOKEN_PREFIX + base64.urlsafe_b64encode(self._tokens.encrypt(known, None)).decode().rstrip("=")

    def value_of(self, token: str) -> object:
        """The value behind a token.

        Raises:
            BadInput: it is no token of this key.
        """
        text = token.removeprefix(TOKEN_PREFIX)
        try:
            known = self._tokens.decrypt(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), None)
        except (InvalidTag, ValueError) as error:
            raise BadInput(
                f"token {token[:80]!r}",
                why="it is no token made with this key",
                fix="give the whole token, and the key that the capture had (key_file, key_env)",
            ) from error
        return known[1:] if known[:1] == b"b" else msgspec.json.decode(known[1:])

    def digest(self, sha256: str) -> str:
        """A digest in place of a body's SHA-256: whoever has the key and the body can compare, nobody can guess."""
        return DIGEST_PREFIX + hmac.new(self._digest, sha256.encode(), hashlib.sha256).hexdigest()


def read_keys(config: RedactionConfig, environ: Mapping[str, str] = os.environ) -> Keys | None:
    """The configured key; None when there is none and no rule needs one.

    Raises:
        ConfigError: a rule needs one, or it cannot be read, or it is too short.
    """
    if config.key_file is not None:
        origin = f"redaction.key_file {config.key_file}"
        try:
            text = config.key_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(origin, why=f"it cannot be read: {type(error).__name__}", fix=_FIX) from None
    else:
        origin = f"redaction.key_env: environment variable {config.key_env}"
        text = environ.get(config.key_env, "")
        if not text and not config.keyed:
            return None
    try:
        key = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise ConfigError(origin, why="it holds no base64", fix=_FIX) from None
    if len(key) < KEY_BYTES_MIN:
        why = f"it holds {len(key)} bytes" if key else "it is not set, and a rule hashes or tokenises"
        raise ConfigError(origin, why=why, fix=_FIX)
    return Keys(key)


_FIX: Final = "put the output of `openssl rand -base64 32` there, the same for all pods whose hashes are to agree"


def plain(value: object) -> bytes:
    """What is hashed of a value: text as it is, 1 and 1.0 as "1", booleans as in JSON, lists and objects as JSON."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case bool():
            return b"true" if value else b"false"
        case float():
            return str(int(value) if value.is_integer() and abs(value) <= _EXACT else value).encode()
        case int():
            return str(value).encode()
        case _:
            return msgspec.json.encode(value, order="deterministic")
