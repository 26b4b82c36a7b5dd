"""Rows to fit detectors on, from the stream that they are to watch: what was asked and answered as the topic has it.

What a worker would hand to no detector is no reference either: synthetic calls, calls that were not answered, bodies
that cannot be read. It is counted with the reason, and stops nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from govern.bus import Bus, Message, Partition
from govern.bus.topics import topic
from govern.codecs.cloudevents import from_message
from govern.codecs.inference import request_tensors
from govern.codecs.tensor import MIXED, Tensor
from govern.codecs.together import decode_together
from govern.columns import texts
from govern.errors import BadInput, DecodeError, GovernError, NotFound
from govern.frame import Frame
from govern.record import Inference
from govern.runtime.flows import answered
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from govern.table import Table, infer_schema

#: Rows that a schema is drawn from: enough to meet a category of one in a thousand, and read in seconds.
SCHEMA_ROWS: Final = 10_000
#: Protocols whose requests are read by a schema, so that none can be drawn from them.
_NEED_SCHEMA: Final = ("csv", "seldon-v1", "openai")
#: Stands for the schema that is not there yet where a codec takes one and does not look at it.
_NO_SCHEMA: Final = FeatureSchema(
    format_version=FORMAT_VERSION, model="", features=(Feature(name="none", kind="numeric"),)
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a stream's inferences to take.

    Attributes:
        service, revision: "" = any.
        within: whether a message of an inference lies between the ends that were asked for.
        left_out: ranges of t_response, nanoseconds since the epoch, first and end: what was answered then is counted,
            and no reference.
    """

    model: str
    service: str = ""
    revision: str = ""
    within: Callable[[Message, Inference], bool] = lambda message, inference: True
    left_out: Sequence[tuple[int, int]] = ()

    def takes(self, message: Message, inference: Inference) -> bool:
        return (
            inference.model == self.model
            and self.service in ("", inference.service)
            and self.revision in ("", inference.revision)
            and self.within(message, inference)
        )


@dataclass(slots=True)
class LeftOut:
    """What of the wanted part could not be used: how many messages for which reason, and the first of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, message: Message, error: GovernError | None = None) -> None:
        self.counts[reason] += 1
        place = f"{message.topic}[{message.partition}]@{message.offset}"
        self.examples.setdefault(reason, f"{place}: {error.what}: {error.why}" if error is not None else place)

    def __iter__(self) -> Iterator[str]:
        """A phrase for each reason, the most frequent first."""
        for reason, count in self.counts.most_common():
            yield f"{count:,} {reason}, such as {self.examples[reason]}"


class Span(NamedTuple):
    """The first and the last offset of a partition that rows came from."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    Attributes:
        frame: the drawn rows in the order of partitions and offsets, with the outputs that all of them have.
        inferences: how many could be used.
        rows: how many rows those have, of which `frame` is a uniform draw.
        spans: partition -> where they stood.
        t_first, t_last: the first and the last time of a response, nanoseconds since the epoch.
    """

    frame: Frame
    inferences: int
    rows: int
    left_out: LeftOut
    spans: Mapping[int, Span]
    t_first: int
    t_last: int


class Stream:
    """The inferences of a namespace from where it is kept to where it ended when the stream was opened."""

    def __init__(self, bus: Bus, name: str, ends: Mapping[Partition, tuple[int, int]]) -> None:
        self._bus = bus
        self.name = name
        self._ends = ends

    @classmethod
    async def open(cls, bus: Bus, namespace: str) -> Stream:
        """
        Raises:
            UnknownTopic: the namespace has no topics.
        """
        name = topic(namespace, "inferences")
        found = [Partition(name, number) for number in range(await bus.partitions(name))]
        return cls(bus, name, {one: (await bus.start_offset(one), await bus.end_offset(one)) for one in found})

    @property
    def messages(self) -> int:
        """At most as many are in it."""
        return sum(end - start for start, end in self._ends.values())

    async def describe(self, wanted: Wanted, *, protected: Sequence[str], pii: Sequence[str]) -> FeatureSchema:
        """A first draft of the schema, from the first `SCHEMA_ROWS` rows that requests hold as the first of them does.

        Raises:
            NotFound: no request can be read without a schema.
            BadInput: as `infer_schema`.
        """
        columns: dict[str, list[object]] = {}
        datatypes: dict[str, str] = {}
        rows, left_out = 0, LeftOut()
        async for found in self._wanted(wanted, left_out):
            for message, inference in found:
                try:
                    named = _named(inference)
                except DecodeError as error:
                    left_out.add("cannot be read without a schema", message, error)
                    continue
                if columns and named.keys() != columns.keys():
                    continue
                for name, (datatype, values) in named.items():
                    columns.setdefault(name, []).extend(values)
                    datatypes.setdefault(name, datatype)
                rows = len(next(iter(columns.values())))
            if rows >= SCHEMA_ROWS:
                break
        if not columns:
            raise self._nothing(wanted, left_out)
        table = Table(self.name, pa.table({name: _array(name, values) for name, values in columns.items()}))
        schema = infer_schema(table, wanted.model, protected=protected, pii=pii)
        features = [
            one if datatypes[one.name] == MIXED else msgspec.structs.replace(one, datatype=datatypes[one.name])
            for one in schema.features
        ]
        return msgspec.structs.replace(schema, features=tuple(features))

    async def draw(
        self,
        wanted: Wanted,
        schema: FeatureSchema,
        *,
        rows: int,
        seed: int,
        outputs: Collection[str] = (),
        progress: Callable[[int], None] = lambda messages: None,
    ) -> Recorded:
        """A uniform draw of the rows, decoded as a worker decodes them.

        Which rows are drawn depends on the seed and on where they stand, not on how they are read.

        Args:
            rows: at most so many.
            outputs: tensors that each response must have.
            progress: is told how many further messages were read.

        Raises:
            NotFound: no inference can be used.
        """
        drawn, left_out = _Draw(rows), LeftOut()
        spans: dict[int, Span] = {}
        inferences, t_first, t_last = 0, 0, 0
        async for found in self._wanted(wanted, left_out, progress):
            decoded = decode_together([inference for _, inference in found], schema)
            for (message, inference), frame in zip(found, decoded, strict=True):
                if isinstance(frame, DecodeError):
                    left_out.add("cannot be read", message, frame)
                    continue
                missing = [name for name in outputs if name not in frame.outputs]
                if missing:
                    left_out.add(f"have no output {missing[0]!r} for its rows", message)
                    continue
                inferences += 1
                place = np.random.default_rng([seed, message.partition, message.offset])
                drawn.add(frame, place.random(len(frame)))
                span = spans.get(message.partition, Span(message.offset, message.offset))
                spans[message.partition] = span._replace(last=message.offset)
                t_first = min(t_first or inference.t_response, inference.t_response)
                t_last = max(t_last, inference.t_response)
        if not inferences:
            raise self._nothing(wanted, left_out)
        return Recorded(drawn.frame(), inferences, drawn.offered, left_out, spans, t_first, t_last)

    async def _wanted(
        self, wanted: Wanted, left_out: LeftOut, progress: Callable[[int], None] = lambda messages: None
    ) -> AsyncIterator[list[tuple[Message, Inference]]]:
        for partition, (start, end) in self._ends.items():
            while start < end and (messages := await self._bus.read(partition, start)):
                yield [
                    (message, inference)
                    for message in messages
                    if message.offset < end and (inference := _usable(message, wanted, left_out)) is not None
                ]
                past = min(messages[-1].offset + 1, end)
                progress(past - start)
                start = past

    def _nothing(self, wanted: Wanted, left_out: LeftOut) -> NotFound:
        reasons = "; ".join(left_out)
        return NotFound(
            f"inferences of model {wanted.model!r} in {self.name}",
            why=f"none can be used: {reasons}" if reasons else "it has none that you ask for",
            fix="widen --from and --to, correct the model, service and revision, or give a schema file",
        )


class _Draw:
    """The rows with the lowest of random keys: a uniform draw in memory for twice as many."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._frames: list[Frame] = []
        self._keys: list[npt.NDArray[np.float64]] = []
        self._held = 0
        self._bar = 1.0
        self.offered = 0

    def add(self, frame: Frame, keys: npt.NDArray[np.float64]) -> None:
        self.offered += len(frame)
        low = np.flatnonzero(keys <= self._bar)
        if not len(low):
            return
        self._frames.append(frame if len(low) == len(frame) else frame.take(low))
        self._keys.append(keys[low])
        self._held += len(low)
        if self._held >= 2 * self._rows:
            self._shrink()

    def frame(self) -> Frame:
        self._shrink()
        return self._frames[0]

    def _shrink(self) -> None:
        whole, keys = Frame.concat(self._frames), np.concatenate(self._keys)
        if len(keys) > self._rows:
            kept = np.sort(np.argsort(keys, kind="stable")[: self._rows])
            whole, keys = whole.take(kept), keys[kept]
            self._bar = float(keys.max())
        self._frames, self._keys, self._held = [whole], [keys], len(keys)


def _usable(message: Message, wanted: Wanted, left_out: LeftOut) -> Inference | None:
    try:
        found = from_message(message)
    except GovernError as error:
        left_out.add("are no records", message, error)
        return None
    if not isinstance(found, Inference):
        left_out.add("are no inferences", message)
        return None
    if not wanted.takes(message, found):
        return None
    if found.synthetic:
        left_out.add("are synthetic", message)
    elif any(first <= found.t_response < end for first, end in wanted.left_out):
        left_out.add("were answered in a range that is left out", message)
    elif not answered(found):
        left_out.add("were not answered", message)
    else:
        return found
    return None


def _named(inference: Inference) -> dict[str, tuple[str, list[object]]]:
    """The columns of a request: name -> datatype and values. Several columns of one tensor are numbered.

    Raises:
        DecodeError: it cannot be read, or not without a schema.
    """
    if inference.protocol in _NEED_SCHEMA:
        raise DecodeError(
            f"a request of protocol {inference.protocol!r}",
            why="its columns are named by the schema",
            fix="write the schema, and name it with --schema",
        )
    found: dict[str, tuple[str, list[object]]] = {}
    for tensor in request_tensors(inference, _NO_SCHEMA):
        rows = len(tensor.data) if tensor.data.ndim else 0
        width = tensor.data.size // rows if rows else 0
        if not width or tensor.data.ndim > 2:
            raise DecodeError(
                f"tensor {tensor.name!r} has shape {list(tensor.data.shape)}",
                why="a column of a table has one value for each row",
                fix="write the schema, and name it with --schema",
            )
        wide = tensor.data.reshape(rows, width)
        for position in range(width):
            name = tensor.name if width == 1 else f"{tensor.name}_{position}"
            found[name] = (tensor.datatype, _values(tensor, wide[:, position]))
    if len({len(values) for _, values in found.values()}) != 1:
        raise DecodeError(
            f"tensors of inference {inference.id}",
            why="they have different numbers of rows, or there is none",
            fix="send one value of each feature for each row",
        )
    return found


def _values(tensor: Tensor, column: npt.NDArray[np.generic]) -> list[object]:
    if tensor.datatype == "BYTES":
        return list(texts(column))
    values: list[object] = column.tolist()
    return values


def _array(name: str, values: Sequence[object]) -> pa.Array[Any]:
    try:
        return pa.array(values, from_pandas=True)
    except pa.ArrowException as error:
        raise BadInput(
            f"column {name!r} of the requests",
            why=f"its values are of several types: {error}",
            fix="write the schema, and name it with --schema",
        ) from error
