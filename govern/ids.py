"""Identifiers: UUIDv7 for what happens, digests for what can be derived."""

from __future__ import annotations

import hashlib
import os
import time


def uuid7(t_ns: int | None = None) -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Args:
        t_ns: time to encode, nanoseconds since the Unix epoch; now when omitted.
    """
    return _uuid7(time.time_ns() if t_ns is None else t_ns, os.urandom(10))


def derived_uuid7(t_ns: int, *parts: str | int) -> str:
    """A UUID of version 7 whose random bits are a digest of the parts: the same happening read twice gets the same id.

    Args:
        t_ns: when it happened, nanoseconds since the Unix epoch.
    """
    return _uuid7(t_ns, bytes.fromhex(derived_id(*parts))[:10])


def _uuid7(t_ns: int, noise_bytes: bytes) -> str:
    millis = t_ns // 1_000_000
    noise = int.from_bytes(noise_bytes, "big")
    high = (millis & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (noise >> 62 & 0x0FFF)
    low = 0x8000_0000_0000_0000 | (noise & 0x3FFF_FFFF_FFFF_FFFF)
    digits = f"{high << 64 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def derived_id(*parts: str | int) -> str:
    """A stable identifier, 32 hex digits, of the parts in order: the same work done twice gets the same id."""
    digest = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return digest.hexdigest()[:32]
