"""Many captured inferences to their frames at once: what is alike is made to arrays together.

A request of one row costs as much as one of a hundred when each of its tensors becomes an array of its own. Requests of
one shape differ in their elements only, so the elements of all become one array for each tensor, and each request is a
slice of it. Whatever is out of the ordinary is read alone, by `inference.decode`, which gives the same frames and says
what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Final

import numpy as np
import numpy.typing as npt

from govern.codecs import inference as alone
from govern.codecs import v1, v2, v2_binary
from govern.codecs.arrays import shaped, typed
from govern.codecs.frames import to_frame
from govern.codecs.tensor import MIXED, Plain, Tensor, check_head, check_names, objects
from govern.errors import DecodeError
from govern.frame import Frame
from govern.record import Inference, Payload
from govern.schema import FeatureSchema

Matrix = npt.NDArray[np.float64]

#: Protocol and side -> how a body's tensors are found before they are arrays.
_PLAIN: Final[dict[tuple[str, str], Callable[[bytes], Plain | None]]] = {
    ("v1", "request"): v1.plain_request,
    ("v1", "response"): v1.plain_response,
    ("v2", "request"): v2.plain_request,
    ("v2", "response"): v2.plain_response,
}


def decode_together(inferences: Sequence[Inference], schema: FeatureSchema) -> list[Frame | DecodeError]:
    """What `inference.decode` gives or raises for each of them."""
    found: dict[int, Frame | DecodeError] = {}
    requests = {i: _plain(one, one.request, side="request") for i, one in enumerate(inferences)}
    for members in _alike(requests):
        try:
            frame = to_frame(_tensors(members.values(), side="input"), schema)
        except DecodeError:
            continue  # of one of them; which one, and why, is found when each is read alone
        rows = {i: plain.rows for i, plain in members.items()}
        outputs = _outputs({i: inferences[i] for i in members}, rows)
        for i, part in _parts(rows):
            found[i] = Frame(
                schema=schema,
                columns=tuple([column[part] for column in frame.columns]),
                instance_ids=tuple([f"{inferences[i].id}/{row}" for row in range(rows[i])]),
                unseen=_unseen(frame, part) if frame.unseen else {},
                outputs=outputs[i],
            )
    return [found[i] if i in found else _alone(one, schema) for i, one in enumerate(inferences)]


def _outputs(inferences: Mapping[int, Inference], rows: Mapping[int, int]) -> dict[int, Mapping[str, Matrix]]:
    """The model's outputs for each, as `inference.decode` gives them."""
    found: dict[int, Mapping[str, Matrix]] = {}
    responses = {
        i: _plain(one, one.response, side="response")
        for i, one in inferences.items()
        if one.status_code == alone.HTTP_OK
    }
    for members in _alike(responses):
        own = {i: plain.rows for i, plain in members.items()}
        if any(own[i] != rows[i] for i in own):
            continue
        try:
            tensors = _tensors(members.values(), side="output")
        except DecodeError:
            continue
        outputs = alone.matrices(tensors, sum(own.values()))
        for i, part in _parts(own):
            found[i] = {name: matrix[part] for name, matrix in outputs.items()}
    for i, one in inferences.items():
        if i not in found:
            found[i] = alone.outputs_of(one, rows[i])
    return found


def _plain(inference: Inference, payload: Payload, *, side: str) -> Plain | None:
    """A side's tensors, None when they are to be read alone."""
    read = _PLAIN.get((inference.protocol, side))
    if read is None or v2_binary.HEADER in payload.headers:
        return None
    try:
        return read(alone.body_of(inference, payload, side=side).data)
    except DecodeError:
        return None


def _alike(plains: Mapping[int, Plain | None]) -> Iterator[dict[int, Plain]]:
    """Those of one kind together."""
    kinds: dict[object, dict[int, Plain]] = {}
    for i, plain in plains.items():
        if plain is not None:
            kinds.setdefault(plain.kinds, {})[i] = plain
    yield from kinds.values()


def _tensors(members: Iterable[Plain], *, side: str) -> list[Tensor]:
    """The tensors of messages of one kind, one below the other.

    Raises:
        DecodeError: what one of them would raise.
    """
    members = list(members)
    kinds, rows = members[0].kinds, sum(one.rows for one in members)
    check_names([name for name, _, _ in kinds], side=side)
    tensors = []
    for position, (name, datatype, of_one) in enumerate(kinds):
        where = f"{side} tensor {name!r}"
        shape = (rows, *of_one[1:])
        flat = list(chain.from_iterable([one.data[position] for one in members]))
        if datatype == MIXED:
            array = objects(flat)
        else:
            check_head(datatype, shape, where=where)
            array = typed(flat, datatype, where=where)
        tensors.append(Tensor(name, datatype, shaped(array, shape, where=where)))
    return tensors


def _parts(rows: Mapping[int, int]) -> Iterator[tuple[int, slice]]:
    """Where the rows of each begin and end."""
    ends = accumulate(rows.values())
    return ((i, slice(end - count, end)) for (i, count), end in zip(rows.items(), ends, strict=True))


def _unseen(frame: Frame, part: slice) -> dict[str, dict[int, str]]:
    found = {
        name: {row - part.start: values[row] for row in range(part.start, part.stop) if row in values}
        for name, values in frame.unseen.items()
    }
    return {name: values for name, values in found.items() if values}


def _alone(inference: Inference, schema: FeatureSchema) -> Frame | DecodeError:
    try:
        return alone.decode(inference, schema)
    except DecodeError as error:
        return error
