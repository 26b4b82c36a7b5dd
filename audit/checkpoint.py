"""Checkpoints (C2SP tlog-checkpoint) and the signed notes that carry them (C2SP signed-note, Ed25519).

A checkpoint is the text `origin\\nsize\\nbase64(root)\\n`; a note adds a blank line and signature lines
`— <key name> base64(key id || signature)\\n`. https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note;
`golang.org/x/mod/sumdb/note` and every witness of the transparency ecosystem read them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.merkle import HASH_BYTES
from govern.errors import BadInput

_ED25519: Final = b"\x01"
_PUBLIC_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
#: C2SP: verifiers accept at least 16 signatures; this many bytes hold them, the text, and stop a hostile file.
_MAX_NOTE_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[^\s+]+")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class BadCheckpoint(BadInput):
    """A note, checkpoint or key that is malformed, or not signed by the key that is trusted."""

    code = "bad-checkpoint"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's key, and its name."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """The text form: `name+hex(key id)+base64(0x01 || public key)`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read the text form.

        Raises:
            BadCheckpoint: it is not of that form, not Ed25519, or its key id does not fit.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _unbase64(encoded, "verifier key")
        if not _NAME.fullmatch(name) or data[:1] != _ED25519 or len(data) != 1 + _PUBLIC_KEY_BYTES:
            raise BadCheckpoint(
                f"verifier key {text.strip()[:80]!r}",
                why="it is not of the form name+hex(key id)+base64(0x01 || 32-byte Ed25519 key)",
                fix="take it from `govern audit init`, or from GET /v1/audit/verifier-key of the log",
            )
        key = cls(name, data[1:])
        if key.key_id.hex() != key_id:
            raise BadCheckpoint(
                f"verifier key of {name!r} has the key id {key_id!r}",
                why=f"its name and public key give {key.key_id.hex()}",
                fix="copy the key again: a character was changed",
            )
        return key


@dataclass(frozen=True, slots=True)
class Signer:
    """The key of a log. Its name is the log's origin."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """The signed note of a text that ends with a newline."""
        data = self.verifier.key_id + self.private.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(data).decode()}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of the tree at one size."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note. Extension lines are accepted and ignored.

        Raises:
            BadCheckpoint: it is no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "" or not all(lines) or not _SIZE.fullmatch(lines[1]):
            raise BadCheckpoint(
                "text of a checkpoint",
                why="it is not the lines origin, size (decimal), base64 root",
                fix="take the checkpoint unchanged from the log",
            )
        root = _unbase64(lines[2], "root of a checkpoint")
        if len(root) != HASH_BYTES:
            raise BadCheckpoint(
                "root of a checkpoint",
                why=f"it has {len(root)} bytes instead of {HASH_BYTES}",
                fix="take the checkpoint unchanged from the log",
            )
        return cls(lines[0], int(lines[1]), root)


def check_name(name: str) -> str:
    """The name of a key and origin of a log.

    Raises:
        BadInput: it is empty, or has a space or a plus sign (C2SP signed-note).
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"origin {name!r}",
            why="the name of a log is not empty and has neither spaces nor `+` (C2SP signed-note)",
            fix="use a name such as example.com/audit/credit",
        )
    return name


def open_note(note: str, trusted: VerifierKey) -> str:
    """The text of a note, if the trusted key signed it. Signatures of other keys are ignored.

    Raises:
        BadCheckpoint: the note is malformed, has no signature of that key, or a wrong one.
    """
    try:
        raw = note.encode()
    except UnicodeEncodeError:
        raw = b"\x00"
    text, separator, lines = note.rpartition("\n\n")
    if len(raw) > _MAX_NOTE_BYTES or not separator or not lines.endswith("\n") or _has_control(note):
        raise BadCheckpoint(
            "signed note",
            why="it is not text, a blank line and signature lines",
            fix="take the checkpoint unchanged from the log",
        )
    text += "\n"
    verified = False
    for line in lines[:-1].split("\n"):
        name, signature = _signature(line)
        if name != trusted.name or signature[:_KEY_ID_BYTES] != trusted.key_id:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(trusted.public).verify(signature[_KEY_ID_BYTES:], text.encode())
        except InvalidSignature:
            raise BadCheckpoint(
                f"signature of {trusted.name}",
                why="it does not fit the text of the note",
                fix="the checkpoint or its signature was changed: take it again from the log, and keep both",
            ) from None
        verified = True
    if not verified:
        raise BadCheckpoint(
            "signed note",
            why=f"it has no signature of the key {trusted.name}+{trusted.key_id.hex()}",
            fix="check that the verifier key is the one of this log",
        )
    return text


def open_checkpoint(note: str, trusted: VerifierKey) -> Checkpoint:
    """The checkpoint in a note that the trusted key signed, of the log that bears the key's name.

    Raises:
        BadCheckpoint: as `open_note` and `Checkpoint.parse`, or the origin is another log's.
    """
    checkpoint = Checkpoint.parse(open_note(note, trusted))
    if checkpoint.origin != trusted.name:
        raise BadCheckpoint(
            f"checkpoint of {checkpoint.origin!r}",
            why=f"the trusted key is that of the log {trusted.name!r}",
            fix="check that the verifier key is the one of this log",
        )
    return checkpoint


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) == 3 and parts[0] == "—" and _NAME.fullmatch(parts[1]):
        data = _unbase64(parts[2], "signature line")
        if len(data) > _KEY_ID_BYTES:
            return parts[1], data
    raise BadCheckpoint(
        "signature line of a note",
        why="it is not `— <key name> <base64>`",
        fix="take the checkpoint unchanged from the log",
    )


def _unbase64(text: str, what: str) -> bytes:
    """Standard base64 with padding, in its one canonical spelling: no two texts stand for the same bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or base64.b64encode(data).decode() != text:
        raise BadCheckpoint(what, why=f"{text[:80]!r} is no canonical base64", fix="copy it unchanged from the log")
    return data


def _has_control(text: str) -> bool:
    return any(character < " " and character != "\n" for character in text)
