"""V2 messages of gRPC (`ModelInferRequest`, `ModelInferResponse`), with typed or raw contents.

A message is redacted only when all of it is understood: fields that the protocol does not name, or bytes that are
not what its fields say, are reasons to withhold it.
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.message import DecodeError, Message

from govern.codecs import grpc_messages
from govern.codecs import open_inference_pb2 as oip
from govern.mirror.redaction.change import Change, Place, Withhold
from govern.mirror.redaction.elements import as_bytes, as_text, pack_elements, unpack_elements
from govern.mirror.redaction.path import may_reach_elements, rewrite
from govern.mirror.redaction.tensors import redact_tensors


class ProtobufTensor:
    """One tensor of a message: its contents, or its entry of the raw contents."""

    __slots__ = ("_raws", "_tensor", "_where")

    def __init__(self, tensor: Any, raws: Any, where: int) -> None:
        self._tensor = tensor
        self._raws = raws
        self._where = where

    @property
    def name(self) -> str:
        return str(self._tensor.name)

    @property
    def datatype(self) -> str:
        return str(self._tensor.datatype)

    @property
    def shape(self) -> list[int]:
        return list(self._tensor.shape)

    def elements(self) -> list[object]:
        count = math.prod(self.shape)
        if self._raws:
            return unpack_elements(self.datatype, self._raws[self._where], count)
        held = [value for _, value in self._tensor.contents.ListFields()]
        field = grpc_messages.CONTENTS.get(self.datatype)
        if field is None or len(held) > 1 or len(getattr(self._tensor.contents, field)) != count:
            raise Withhold("a tensor's contents do not fit its shape and datatype")
        values = list(getattr(self._tensor.contents, field))
        return [as_text(value) if isinstance(value, bytes) else value for value in values]

    def put(self, datatype: str, elements: list[object]) -> None:
        self._tensor.datatype = datatype
        if datatype == "BYTES" and "content_type" in self._tensor.parameters:
            self._tensor.parameters["content_type"].string_param = "str"  # as `tensors.set_plain_text`
        if self._raws:
            self._raws[self._where] = pack_elements(datatype, elements)
            return
        self._tensor.contents.Clear()
        values: list[Any] = (
            [as_bytes(value) for value in elements]
            if datatype == "BYTES"
            else [math.nan if value is None else value for value in elements]
        )
        getattr(self._tensor.contents, grpc_messages.CONTENTS[datatype]).extend(values)


class InferMessage:
    """One message of a body, to be redacted in place."""

    def __init__(self, data: bytes, *, side: str, stream: bool) -> None:
        kind = oip.ModelStreamInferResponse if stream else oip.ModelInferResponse
        outer: Any = oip.ModelInferRequest() if side == "request" else kind()
        self._outer: Message = outer
        try:
            outer.ParseFromString(data)
        except DecodeError:
            raise Withhold("the body is no V2 message") from None
        known = outer.ByteSize()
        outer.DiscardUnknownFields()
        if outer.ByteSize() != known or known != len(data):
            raise Withhold("the message holds fields that the protocol does not name")
        if getattr(outer, "error_message", ""):
            raise Withhold("the message holds an error text")
        # After parsing: before, this would be a message of its own.
        self._message: Any = outer.infer_response if side == "response" and stream else outer
        self._key = "inputs" if side == "request" else "outputs"
        self._tensors = getattr(self._message, self._key)
        raws = getattr(self._message, f"raw_{self._key.removesuffix('s')}_contents")
        if raws and (len(raws) != len(self._tensors) or any(each.HasField("contents") for each in self._tensors)):
            raise Withhold("the raw contents are not those of the tensors")
        self.tensors = [ProtobufTensor(tensor, raws, where) for where, tensor in enumerate(self._tensors)]

    def apply(self, place: Place, change: Change, features: tuple[str, ...]) -> None:
        """Apply a rule.

        Raises:
            Withhold: the rule may concern this message in a way that cannot be followed.
        """
        if not place.path:
            redact_tensors(self.tensors, place, change, features)
        elif may_reach_elements(place.path):
            raise Withhold("elements of tensors have no path here: name the tensor or column")
        else:
            found = change.count
            fields = [_Fields(self._message, ("model_name", "model_version", "id"))]
            fields += [_Fields(tensor, ("name", "datatype")) for tensor in self._tensors]
            document = {**fields[0].shown, self._key: [one.shown for one in fields[1:]]}
            rewrite(document, place.path, change)
            if change.count > found:
                for one, now in zip(fields, [document, *_objects(document[self._key])], strict=True):
                    one.put(now)

    def to_bytes(self) -> bytes:
        return self._outer.SerializeToString(deterministic=True)


class _Fields:
    """The fields of a message that a path can name, as a document."""

    def __init__(self, message: Any, scalars: tuple[str, ...]) -> None:
        self._message = message
        self._scalars = scalars
        self._parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
            for name, value in message.parameters.items()
        }
        self.shown: dict[str, object] = {
            **{name: getattr(message, name) for name in scalars if getattr(message, name)},
            "parameters": dict(self._parameters),
        }

    def put(self, now: dict[str, object]) -> None:
        """Take over what has changed."""
        for name in self._scalars:
            value = now.get(name)
            setattr(self._message, name, "" if value is None else str(value))
        parameters = now["parameters"]
        for name, value in self._parameters.items():
            changed = parameters.get(name) if isinstance(parameters, dict) else None
            if changed is None:
                del self._message.parameters[name]
            elif changed is not value:
                self._message.parameters[name].string_param = str(changed)


def _objects(items: object) -> list[dict[str, object]]:
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if not isinstance(items, list) or len(found) < len(items):
        raise Withhold("a tensor was taken out as a whole")
    return found
