"""The secrets of a log, in one folder: who may write there may sign as the log and read what it withholds.

signing-key.pem     Ed25519 private key, PKCS #8 PEM, mode 0600: signs the checkpoints
encryption-key      256-bit key-encryption key, hex, mode 0600: wraps the data keys of `audit.seal`
verifier-key.txt    the public half of the signing key, to be given to whoever verifies
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from audit.checkpoint import Signer, VerifierKey, check_name
from audit.seal import KEY_BYTES, KeyEncryptionKey
from govern.errors import ConfigError
from govern.telemetry.logging import get_logger

_SIGNING: Final = "signing-key.pem"
_ENCRYPTION: Final = "encryption-key"
_VERIFIER: Final = "verifier-key.txt"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    signer: Signer
    encryption: KeyEncryptionKey


def load_or_create(folder: Path, origin: str) -> Keys:
    """The keys of the log `origin`, made when the folder has none; each new file is named in a log line.

    Raises:
        ConfigError: a key file is damaged, others than its owner may read it, or the keys are another log's.
        OSError: the folder cannot be written.
    """
    check_name(origin)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _create(folder / _SIGNING, _new_signing_key()):
        _log.info("audit signing key created", path=str(folder / _SIGNING), origin=origin)
    if _create(folder / _ENCRYPTION, os.urandom(KEY_BYTES).hex().encode() + b"\n"):
        _log.info(
            "audit encryption key created; back it up: without it no withheld field can be read again",
            path=str(folder / _ENCRYPTION),
        )
    key = Signer(origin, _load_signing(folder / _SIGNING)).verifier
    if _create(folder / _VERIFIER, f"{key}\n".encode(), mode=0o644):
        _log.info("audit verifier key written; give it to whoever verifies", path=str(folder / _VERIFIER), key=str(key))
    keys = load(folder)
    if keys.signer.name != origin:
        raise ConfigError(
            f"keys in {folder}",
            why=f"they are those of the log {keys.signer.name!r}, not of {origin!r}",
            fix=f"use --origin {keys.signer.name}, or another key folder",
        )
    return keys


def load_signer(folder: Path) -> Signer:
    """The signing key in a folder, and its name.

    Raises:
        ConfigError: its file, or that of the verifier key, is absent, damaged, or readable by others than its owner.
    """
    public = folder / _VERIFIER
    try:
        verifier = VerifierKey.parse(public.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(public, error) from error
    signer = Signer(verifier.name, _load_signing(folder / _SIGNING))
    if signer.verifier != verifier:
        raise ConfigError(
            f"verifier key {public}",
            why="it is not the public half of the signing key beside it",
            fix="restore the folder from its backup",
        )
    return signer


def origin_in(folder: Path) -> str | None:
    """The name of the log whose keys a folder holds; None when it holds none."""
    public = folder / _VERIFIER
    return VerifierKey.parse(public.read_text(encoding="utf-8")).name if public.exists() else None


def load(folder: Path) -> Keys:
    """The keys in a folder.

    Raises:
        ConfigError: a key file is absent, damaged, or readable by others than its owner.
    """
    return Keys(load_signer(folder), load_encryption(folder / _ENCRYPTION))


def load_encryption(path: Path) -> KeyEncryptionKey:
    """The key-encryption key in a file (or in a key folder).

    Raises:
        ConfigError: the file is absent, damaged, or readable by others than its owner.
    """
    if path.is_dir():
        path = path / _ENCRYPTION
    try:
        secret = bytes.fromhex(_read_secret(path).decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigError(
            f"encryption key {path}",
            why=f"it is not {KEY_BYTES} bytes in hex",
            fix="restore the file from its backup: a new key cannot open what the old one closed",
        )
    return KeyEncryptionKey(secret)


def _load_signing(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"signing key {path}",
            why="it is no Ed25519 private key in PKCS #8 PEM without a password",
            fix="restore the file from its backup, or start a new log with `govern audit keygen`",
        )
    return key


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _create(path: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Write a key unless its file exists. It appears whole or not at all: two processes may start together."""
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _read_secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"key file {path} has mode {stat.S_IMODE(mode):04o}",
            why="others than its owner may use it",
            fix=f"chmod 600 {path}",
        )
    return data.strip() + b"\n"


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"key file {path} cannot be read",
        why=str(error),
        fix="name the key folder with --keys (GOVERN_AUDIT_KEYS), or make one with `govern audit init`",
    )
