"""Values that only the holder of a private key can read: sealed by the pod, which cannot open them again.

One box holds the values of one payload's redactions, `{"<redaction's path>": [value, ...], ...}` as JSON, the values
in the order of the body (row by row). ECIES in the manner of RFC 9180 (HPKE, base mode): an ephemeral X25519 key for
each box, HKDF-SHA256 over the shared secret and both public keys, ChaCha20-Poly1305. The inference's id and the side
are authenticated, so a box opens beside its own record only.

    0   u8   format, 1
    1   8s   first bytes of the recipient key's SHA-256: which private key opens it
    9   32s  ephemeral public key
    41  ...  ciphertext and tag
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from govern.errors import BadInput

FORMAT: Final = 1
_KEY_ID_BYTES: Final = 8
_PUBLIC_BYTES: Final = 32
_HEAD_BYTES: Final = 1 + _KEY_ID_BYTES + _PUBLIC_BYTES
_INFO: Final = b"govern sealed payload 1"
#: Each key encrypts one box.
_NONCE: Final = bytes(12)

Values = dict[str, list[object]]


def seal(values: Values, recipient: X25519PublicKey, *, inference_id: str, side: str) -> bytes:
    """Close values for the holder of the recipient's private key.

    Args:
        values: path of the redaction -> what it took, of JSON's kinds; bytes become base64.
        side: "request" or "response".
    """
    ephemeral = X25519PrivateKey.generate()
    mine, theirs = ephemeral.public_key().public_bytes_raw(), recipient.public_bytes_raw()
    key = _key(ephemeral.exchange(recipient), mine, theirs)
    box = ChaCha20Poly1305(key).encrypt(_NONCE, msgspec.json.encode(values), _bound(inference_id, side))
    return bytes([FORMAT]) + _key_id(theirs) + mine + box


def unseal(box: bytes, key: X25519PrivateKey, *, inference_id: str, side: str) -> Values:
    """What `seal` closed.

    Raises:
        BadInput: no such box, sealed for another key, damaged, or of another inference or side.
    """
    if len(box) < _HEAD_BYTES or box[0] != FORMAT:
        raise BadInput(
            "sealed values", why=f"{len(box)} bytes are no box of format {FORMAT}", fix="give the bytes of `sealed`"
        )
    public = key.public_key().public_bytes_raw()
    named, ephemeral = box[1 : 1 + _KEY_ID_BYTES], box[1 + _KEY_ID_BYTES : _HEAD_BYTES]
    if named != _key_id(public):
        raise BadInput(
            "sealed values",
            why=f"they were sealed for the key {named.hex()}, this one is {_key_id(public).hex()}",
            fix="take the private key that belongs to the capture's seal_to",
        )
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        opened = ChaCha20Poly1305(_key(shared, ephemeral, public)).decrypt(
            _NONCE, box[_HEAD_BYTES:], _bound(inference_id, side)
        )
    except (InvalidTag, ValueError) as error:  # ValueError: a point of low order
        raise BadInput(
            "sealed values",
            why="they are damaged, or belong to another inference or side",
            fix="give the inference's id and side as its record names them",
        ) from error
    return msgspec.json.decode(opened, type=Values)


def public_key(pem: bytes, *, origin: str) -> X25519PublicKey:
    """An X25519 public key in PEM (`openssl pkey -pubout`).

    Raises:
        BadInput: it is none.
    """
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise _no_key(origin, "public") from error
    if not isinstance(key, X25519PublicKey):
        raise _no_key(origin, "public")
    return key


def private_key(pem: bytes, *, origin: str) -> X25519PrivateKey:
    """An X25519 private key in PEM (`openssl genpkey -algorithm X25519`).

    Raises:
        BadInput: it is none, or closed with a password.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(origin, "private") from error
    if not isinstance(key, X25519PrivateKey):
        raise _no_key(origin, "private")
    return key


def _no_key(origin: str, kind: str) -> BadInput:
    command = "openssl genpkey -algorithm X25519 -out audit.pem"
    return BadInput(
        origin,
        why=f"it holds no X25519 {kind} key in PEM",
        fix=command if kind == "private" else f"{command}; openssl pkey -in audit.pem -pubout -out audit.pub.pem",
    )


def _key(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=ephemeral + recipient, info=_INFO).derive(shared)


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:_KEY_ID_BYTES]


def _bound(inference_id: str, side: str) -> bytes:
    return f"{inference_id}/{side}".encode()
