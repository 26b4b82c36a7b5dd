"""Server-sent events: a captured body to the data of its events.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

CONTENT_TYPE: Final = "text/event-stream"


def is_event_stream(body: bytes, content_type: str) -> bool:
    """Whether a body is a stream of events: said so, or begun with a field or a comment as no JSON is."""
    return content_type.lower().startswith(CONTENT_TYPE) or body.lstrip().startswith((b"data:", b"event:", b":"))


def split(body: bytes) -> tuple[list[bytes], bytes]:
    """The data of each event, and the data of an event that the body ends in before its blank line (b"" for none)."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in _LINE.split(body.removeprefix(_BYTE_ORDER_MARK)):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            events.append(b"\n".join(data))
            data = []
    return events, b"\n".join(data)
