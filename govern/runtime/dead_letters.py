"""Dead letters: what could not be processed, with the reason and the original bytes. Pure."""

from __future__ import annotations

import json

from govern import record as records
from govern.bus.protocol import Message
from govern.errors import GovernError
from govern.ids import derived_id
from govern.record import DeadLetter, Window
from govern.runtime.judge import Stream


def of_message(
    message: Message, error: GovernError, *, namespace: str, pipeline: str = "", step: str = ""
) -> DeadLetter:
    """The dead letter of a message; the same for the same message, pipeline and step, whoever gives it up."""
    return DeadLetter(
        schema_version=records.SCHEMA_VERSION,
        id=derived_id("dead-letter", message.topic, message.partition, message.offset, pipeline, step),
        namespace=namespace,
        source_topic=message.topic,
        source_partition=message.partition,
        source_offset=message.offset,
        pipeline=pipeline,
        step=step,
        code=error.code,
        what=error.what,
        why=error.why,
        fix=error.fix,
        key=message.key,
        value=message.value or b"",
        headers=dict(message.headers),
        t_failed=message.timestamp_ms * 1_000_000,
        value_size=len(message.value or b""),
    )


def of_window(where: Window, error: Exception, stream: Stream) -> DeadLetter:
    """The dead letter of a window whose detector raised: it names the rows, which are still in their topic."""
    known = error if isinstance(error, GovernError) else None
    return DeadLetter(
        schema_version=records.SCHEMA_VERSION,
        id=derived_id(
            "dead-window",
            stream.pipeline,
            stream.step,
            where.topic,
            where.partition,
            where.first_offset,
            where.first_row,
        ),
        namespace=stream.namespace,
        source_topic=where.topic,
        source_partition=where.partition,
        source_offset=where.first_offset,
        pipeline=stream.pipeline,
        step=stream.step,
        code=known.code if known else "detector-failed",
        what=known.what if known else f"step {stream.step!r} could not judge a window of {where.n_instances}",
        why=known.why if known else f"{type(error).__name__}: {error}",
        fix=known.fix if known else "mend the detector; the rows are in the topic from source_offset on",
        headers={"window": json.dumps({"last_offset": where.last_offset, "last_row": where.last_row}).encode()},
        t_failed=where.t_last,
    )
