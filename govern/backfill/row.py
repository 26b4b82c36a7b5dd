"""What the rows of others' files say: whole calls, or halves of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from govern.mirror.join import Side


@dataclass(frozen=True, slots=True)
class Body:
    """One side of a call, as it was on the wire."""

    data: bytes
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An inference as a row tells it. What a row does not tell is empty, and the configuration says it.

    Attributes:
        identity: what makes the record's id stable, beside the time; empty = the file's digest and the row.
        t_request, t_response: nanoseconds since the Unix epoch.
        fraction: the share of calls that the other system recorded.
    """

    request: Body | None
    response: Body | None
    t_request: int
    t_response: int
    request_id: str = ""
    identity: tuple[str, ...] = ()
    status_code: int = 200
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    error: str = ""
    fraction: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfCall:
    """A request or a response, recorded alone; `call` has that side only."""

    key: Hashable
    side: Side
    call: Call


R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(Generic[R]):
    """How the files of one system are read.

    Attributes:
        rows: a file's rows, in order, not parsed yet; raises BadInput when it is no such file.
        parse: one of them; raises DecodeError when it is malformed.
        original: its bytes, for a dead letter.
    """

    name: str
    rows: Callable[[Path], Iterator[R]]
    parse: Callable[[R], Call | HalfCall]
    original: Callable[[R], bytes]
