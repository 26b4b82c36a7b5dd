"""Which partition a key belongs to: the same answer as every Kafka client's default partitioner."""

from __future__ import annotations

import functools
from typing import Final

_MASK: Final = 0xFFFF_FFFF
_M: Final = 0x5BD1_E995
_SEED: Final = 0x9747_B28C

#: A bus sees a few keys (one per model and lane) again and again; hashing one in Python costs 10 µs.
_REMEMBERED_KEYS: Final = 4096


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`; unsigned."""
    h = _SEED ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@functools.lru_cache(maxsize=_REMEMBERED_KEYS)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions`: murmur2 without its sign bit, modulo."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions
