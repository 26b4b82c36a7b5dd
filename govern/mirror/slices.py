"""Who goes first where several processes of a pod want the same processor.

Linux lets what computes go on for its slice, some milliseconds, before whoever woke meanwhile gets its turn: a
request would wait for the shipper. A process may ask for slices of another length (sched_setattr(2), from Linux 6.12),
and who asks for shorter ones than the one at work takes its place at once. The share that each gets of the processor
stays what it is. https://docs.kernel.org/scheduler/sched-eevdf.html
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final, NamedTuple

#: sched_setattr and sched_getattr, which the C library does not name, by machine.
_CALLS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
#: size, policy, flags, nice, priority, runtime, deadline, period: struct sched_attr, first version.
_ATTR: Final = struct.Struct("=IIQiIQQQ")

#: Of a process that nobody waits for: above what the kernel gives without being asked (0.7 to 4 ms).
LONG_NS: Final = 20_000_000
#: Of one that carries requests: what it does for one takes a fraction of that. The least that the kernel grants.
SHORT_NS: Final = 100_000


class _Attr(NamedTuple):
    size: int
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


def ask_for_slices(length_ns: int) -> None:
    """Ask for slices of that length for this thread and those that it starts. What cannot be had is done without:
    an older kernel, another class of scheduling, a container that forbids it."""
    attr = _attr(0)
    if attr is not None and attr.policy in (os.SCHED_OTHER, os.SCHED_BATCH):
        wanted = attr._replace(size=_ATTR.size, runtime=length_ns)
        _call(0, 0, ctypes.create_string_buffer(_ATTR.pack(*wanted), _ATTR.size), 0)


def slices_of(pid: int) -> int:
    """The length of a process's slices in nanoseconds; 0 when the kernel does not say."""
    attr = _attr(pid)
    return 0 if attr is None else attr.runtime


def _attr(pid: int) -> _Attr | None:
    buffer = ctypes.create_string_buffer(_ATTR.size)
    return _Attr(*_ATTR.unpack(buffer.raw)) if _call(1, pid, buffer, _ATTR.size, 0) else None


def _call(which: int, pid: int, buffer: ctypes.Array[ctypes.c_char], *rest: int) -> bool:
    numbers = _CALLS.get(platform.machine())
    return numbers is not None and ctypes.CDLL(None).syscall(numbers[which], pid, buffer, *rest) == 0
