"""Logs: structured, set up once at the process's edge, and never a payload.

Code that logs takes `get_logger(__name__)` and names an event and its fields. It goes through the standard library,
so that inside other people's processes their set-up decides; in ours, `configure` renders JSON lines for machines
or coloured lines for people. `bound(namespace=..., pipeline=..., step=...)` adds fields to every line of a task.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from typing import Final, TextIO, cast

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from govern.errors import GovernError

#: Longest text that a field may hold. Long enough for an error message, too short for a body.
_FIELD_CHARS: Final = 1024
#: Most items of a list that a field may hold: names and offsets, not instances.
_FIELD_ITEMS: Final = 32
#: Fields that are payloads by name: of these only numbers (of instances, of bytes) are shown.
_WITHHELD_FIELDS: Final = frozenset(
    {"body", "payload", "inputs", "inputs_json", "instances", "request", "response", "headers", "authorization"}
)

#: An event leaves structlog as a record of the standard library, its fields as `extra`.
_TO_STANDARD_LIBRARY: Final = (structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose fields travel as `extra` of the standard library's record."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_TO_STANDARD_LIBRARY,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def bound(*, namespace: str = "", pipeline: str = "", step: str = "") -> AbstractContextManager[None]:
    """Add the fields that are given to every line logged in this task and its children, until the block ends."""
    fields = {"namespace": namespace, "pipeline": pipeline, "step": step}
    return structlog.contextvars.bound_contextvars(**{name: value for name, value in fields.items() if value})


#: Libraries that log each request they make: at INFO that is traffic, not news.
_CHATTY: Final = ("httpx",)


def configure(level: str, *, json: bool, stream: TextIO | None = None) -> None:
    """Send every log line of this process, ours and the libraries', to `stream` (standard error).

    Called by the process's entry point, once; calling it again replaces the set-up.

    Args:
        level: a level name of the standard library, such as "INFO".
        json: one JSON object a line (`timestamp`, `level`, `logger`, `event`, fields), else text for a person.
    """
    stream = sys.stderr if stream is None else stream
    # Plain tracebacks in both forms: the rich ones print local variables, and those hold payloads.
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
                withhold_payloads,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    # For `structlog.get_logger` too, which a plug-in may use: unconfigured, it prints to standard output.
    structlog.configure(
        processors=_TO_STANDARD_LIBRARY,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING if root.level == logging.INFO else logging.NOTSET)


def withhold_payloads(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Structlog processor: numbers, short texts and short lists of them pass; of anything else only what it is."""
    return {name: value if name in _META_FIELDS else _shown(value, name) for name, value in event.items()}


#: The formatter's own fields: the record, and the exception that its renderer prints.
_META_FIELDS: Final = frozenset({"_record", "_from_structlog", "exc_info", "stack_info"})


def _shown(value: object, name: str = "") -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case _ if name in _WITHHELD_FIELDS:
            return "<withheld>"
        case GovernError():
            return {"code": value.code, "what": value.what, "why": value.why, "fix": value.fix}
        case str() | BaseException():
            text = str(value)
            return text if len(text) <= _FIELD_CHARS else f"{text[:_FIELD_CHARS]}… ({len(text)} characters)"
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case list() | tuple() | set() | frozenset() if len(value) <= _FIELD_ITEMS:
            return [_shown(item) for item in value]
        case list() | tuple() | set() | frozenset():
            return f"<{len(value)} items>"
        case _:
            return f"<{type(value).__name__}>"
