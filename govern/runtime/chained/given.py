"""What a chained pipeline is given: the side of an inference that it reads, or several of them made to one request.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from govern.codecs.frames import to_frame, to_tensors
from govern.codecs.inference import request_tensors, response_tensors
from govern.codecs.tensor import MIXED
from govern.ids import derived_uuid7
from govern.pipeline.chain import Chain, Reading
from govern.record import Capture, Inference
from govern.runtime.flow.message import Message, Part, merged, taken
from govern.runtime.outputs import LINEAGE, given_record, lineage
from govern.schema import FeatureSchema


@dataclass(frozen=True, slots=True)
class View:
    """How a pipeline that reads one other sees the inferences of that one.

    Attributes:
        schema: of the requests of the pipeline that is read.
    """

    reading: Reading
    schema: FeatureSchema

    def given(self, inference: Inference) -> Inference | None:
        """The inference as the pipeline is given it; None when what it reads did not come.

        Raises:
            BadInput: the side that is read cannot be read.
        """
        if not came_from(self.reading, inference):
            return None
        if self.reading.whole:
            return inference
        tensors = read(self.reading, inference, self.schema)
        return given_record(inference, tensors) if tensors else None


def came_from(reading: Reading, inference: Inference) -> bool:
    """Whether an inference of the model that is read was published by the pipeline that is, not captured."""
    return not reading.pipeline or lineage(inference)[:1] == (reading.pipeline,)


def read(reading: Reading, inference: Inference, schema: FeatureSchema) -> Message:
    """The tensors that a port reads of an inference, under the names that it gives them; none when they did not come.

    Raises:
        BadInput: the side that is read cannot be read.
    """
    if reading.side == "outputs":
        return taken(reading.port, tuple(response_tensors(inference)))
    tensors = tuple(request_tensors(inference, schema))
    if any(tensor.datatype == MIXED for tensor in tensors):
        tensors = tuple(to_tensors(to_frame(tensors, schema)))
    return taken(reading.port, tensors)


def joined(chain: Chain, parts: Sequence[tuple[int, Inference]], schemas: Sequence[FeatureSchema]) -> Inference:
    """The request that the parts of a join make.

    It is of the model `<pipeline>.inputs`, and of the call that the first part is of: revision, endpoint and trace are
    that one's. It began with the first of the parts and ended with the last.

    Args:
        parts: port -> what it brought, as `given_record` made it; at least one.
        schemas: of the ports.

    Raises:
        BadInput: a part cannot be read any more.
        ConfigError: two parts bring a tensor of the same name.
    """
    records = [record for _, record in parts]
    tensors = merged(
        [
            Part(chain.inputs[port].port.text, port, tuple(request_tensors(record, schemas[port])))
            for port, record in parts
        ]
    )
    first, source = records[0], chain.source
    through = dict.fromkeys(name for record in records for name in lineage(record))
    redactions = dict.fromkeys(one for record in records for one in record.redactions)
    t_response = max(record.t_response for record in records)
    made = replace(
        first,
        id=derived_uuid7(t_response, "joined", chain.pipeline, *(record.id for record in records)),
        service=source.service,
        model=source.model,
        t_request=min(record.t_request for record in records),
        t_response=t_response,
        redactions=tuple(redactions),
        synthetic=any(record.synthetic for record in records),
        capture=Capture(
            agent=f"{source.model}/{first.capture.agent}",
            pod=first.capture.pod,
            seq=first.capture.seq,
            dropped_before=first.capture.dropped_before,
            source=LINEAGE + ",".join(through) if through else first.capture.source,
        ),
    )
    return given_record(made, tensors)
