"""Encryption of segments that lie on a disk, under a key that only the pod's memory holds.

Needed where the spool's folder is on no tmpfs and there are rules of redaction: then nothing may be on a disk that the
rules would have taken out. The key is a file on tmpfs, `<spool_key_dir>/govern-spool-<id>.key`, mode 0600, so that it
outlives each process of the pod and is gone with the machine; what then still lies on the disk cannot be read again.
Each agent has its own key, derived from that one by its name, and counts its nonces: none is used twice.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from itertools import count
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from govern.errors import ConfigError, Unavailable
from govern.mirror import folder
from govern.mirror.config import MirrorConfig

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
#: By which a closed payload is longer: the nonce, and AES-GCM's tag.
OVERHEAD_BYTES: Final = _NONCE_BYTES + 16
_ID_FILE: Final = "key.id"


class FrameCipher:
    """Closes and opens the payloads of one agent's frames; the frame's seq is authenticated with them."""

    def __init__(self, spool_key: bytes, agent: str) -> None:
        info = b"govern spool segment 1 " + agent.encode()
        self._cipher = AESGCM(HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(spool_key))
        self._nonces = count()

    def close(self, seq: int, payload: bytes) -> bytes:
        """Only the agent itself calls this, in one thread."""
        nonce = next(self._nonces).to_bytes(_NONCE_BYTES, "big")
        return nonce + self._cipher.encrypt(nonce, payload, _bound(seq))

    def open(self, seq: int, payload: bytes) -> bytes | None:
        """What was closed; None when it was closed with another key, or is not what was closed."""
        try:
            return self._cipher.decrypt(payload[:_NONCE_BYTES], payload[_NONCE_BYTES:], _bound(seq))
        except (InvalidTag, ValueError):
            return None


def needed_key(config: MirrorConfig) -> bytes | None:
    """The spool's key, made if there is none yet; None where nothing needs to be encrypted.

    Raises:
        Unavailable: it is needed, and there is no memory to keep it in.
    """
    folder.make_private(config.spool_dir)
    if not config.redaction.rules or folder.in_memory(config.spool_dir):
        return None
    key_dir = config.redaction.spool_key_dir
    if not key_dir.is_dir() or not folder.in_memory(key_dir):
        raise Unavailable(
            f"spool folder {config.spool_dir}",
            why=f"it is on a disk, what lies there must be encrypted, and {key_dir} is on no tmpfs to keep the key in",
            fix="put spool_dir on tmpfs (an emptyDir of medium Memory), or name a folder on tmpfs in "
            "redaction.spool_key_dir",
        )
    try:
        identity = _made_once(config.spool_dir / _ID_FILE, secrets.token_hex(8).encode())
        return _made_once(_key_path(key_dir, identity), secrets.token_bytes(_KEY_BYTES))
    except OSError as error:
        raise Unavailable(
            f"spool key in {key_dir}",
            why=f"it cannot be made or read: {error.strerror}",
            fix="let all processes of the pod that share the spool run as one user, and share that folder",
        ) from error


def refuse_without_restart(before: MirrorConfig, after: MirrorConfig) -> None:
    """Refuse the first rules for a spool on a disk: agents that run write there without encryption.

    Raises:
        ConfigError: they are the first ones.
    """
    if after.redaction.rules and not before.redaction.rules and not folder.in_memory(before.spool_dir):
        raise ConfigError(
            "redaction.rules",
            why=f"{before.spool_dir} is on a disk, and what runs now writes there without encryption",
            fix="restart the pod with these rules, or put spool_dir on tmpfs",
        )


def known_key(config: MirrorConfig) -> bytes | None:
    """The spool's key if there is one: segments from before a change of the rules may need it."""
    with contextlib.suppress(OSError):
        identity = (config.spool_dir / _ID_FILE).read_bytes()
        return _key_path(config.redaction.spool_key_dir, identity).read_bytes()
    return None


def _key_path(key_dir: Path, identity: bytes) -> Path:
    return key_dir / f"govern-spool-{identity.decode('ascii', 'replace')}.key"


def _made_once(path: Path, content: bytes) -> bytes:
    """The file's content: `content` if it did not exist. Of several processes at once, one makes it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()


def _bound(seq: int) -> bytes:
    return seq.to_bytes(8, "big")
