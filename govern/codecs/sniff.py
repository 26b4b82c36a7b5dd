"""Which protocol a request is of, when the capture was not told."""

from __future__ import annotations

from typing import Final

from govern.codecs import mlflow, v2_binary
from govern.codecs.json_body import parse
from govern.codecs.protocols import Body
from govern.errors import DecodeError

_GRPC: Final = ("application/grpc", "application/protobuf")
_CSV: Final = "text/csv"


def protocol_of(body: Body) -> str:
    """The protocol of a request, by its content type, its headers and the fields of its JSON.

    Raises:
        DecodeError: no JSON, or JSON of no protocol.
    """
    content_type = body.content_type.strip().lower()
    if content_type.startswith(_GRPC):
        return "v2-grpc"
    if content_type.startswith(_CSV):
        return "csv"
    if v2_binary.HEADER in body.headers:
        return "v2"
    head, _ = v2_binary.split(body.data, None, what="request")
    document = parse(head, object, what="request")
    found = _by_fields(document) if isinstance(document, dict) else None
    if found is None:
        raise DecodeError(
            "request of unknown protocol",
            why="its JSON has the fields of no protocol that this release decodes",
            fix="call the model over V1 or V2, or name the protocol where the capture is configured",
        )
    return found


def _by_fields(document: dict[str, object]) -> str | None:
    inputs = document.get("inputs")
    if isinstance(inputs, list) and any(isinstance(item, dict) and "datatype" in item for item in inputs):
        return "v2"
    return next((protocol for protocol, fields in _FIELDS.items() if not fields.isdisjoint(document)), None)


#: Protocol -> top-level fields of which its requests have at least one; V2 is told from V1 by its tensors.
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "v1": frozenset(("instances", "inputs")),
    "seldon-v1": frozenset(("data", "strData", "jsonData", "binData")),
    "openai": frozenset(("messages", "prompt", "input")),
    "mlflow": mlflow.FIELDS,
}
