"""Answer: an ExplainRequest to its Explanation. Synchronous; runs in a thread of whoever serves it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from explainers.base import Explained, Explainer
from explainers.deadline import Deadline
from explainers.reasons import TOP_K, reasons
from govern import record as records
from govern.codecs.frames import from_rows
from govern.errors import BadInput, GovernError, NotFound
from govern.frame import Frame
from govern.record import AnchorRule, ExplainRequest, Explanation
from govern.telemetry.logging import get_logger

#: Explanations kept for equal rows: a few kB each.
CACHE_SIZE: Final = 1024
#: Of a request that states no deadline.
DEFAULT_DEADLINE_S: Final = 30.0
#: The longest that one request may hold up the others of its partition.
MAX_DEADLINE_S: Final = 120.0

_log = get_logger(__name__)

Key = tuple[str, str, str]


class Answerer:
    """Explains rows by the explainers that it was given. Safe for several threads.

    Args:
        explainers: under the names by which they are asked for; each bound to its model.
        cache_size: complete explanations that are kept, by explainer, model and row.
        clock_ns: Unix time in nanoseconds.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        *,
        cache_size: int = CACHE_SIZE,
        top_k: int = TOP_K,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._explainers = dict(explainers)
        self._cache: OrderedDict[Key, Explained] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._top_k = top_k
        self._clock_ns = clock_ns

    def answer(self, request: ExplainRequest, *, stopped: threading.Event | None = None) -> Explanation:
        """The explanation that a request asks for; one of status "failed" when there cannot be one.

        Args:
            stopped: when set, the result is not wanted any more, and comes as soon as it can.
        """
        try:
            return self.explain(request, stopped=stopped)
        except GovernError as error:
            return self._failed(request, str(error))
        except Exception as error:  # noqa: BLE001 - a user's own explainer must not block the requests behind it
            _log.exception("explainer failed", explainer=request.explainer, explanation=request.id)
            return self._failed(request, f"the explainer failed: {type(error).__name__}: {error}")

    def explain(self, request: ExplainRequest, *, stopped: threading.Event | None = None) -> Explanation:
        """As `answer`, but a failure is raised.

        Raises:
            NotFound: no such explainer.
            BadInput: inputs that are no row of its schema, or that the model refused.
            DeadlinePassed: time ran out before there was any result.
            Unavailable: the model cannot be asked.
        """
        seconds = min(request.deadline_s if request.deadline_s > 0 else DEFAULT_DEADLINE_S, MAX_DEADLINE_S)
        explainer = self._explainer(request.explainer)
        explained = self._explained(explainer, _row(request, explainer), Deadline.after(seconds, stopped=stopped))
        return self._told(request, explainer, explained)

    def _explainer(self, name: str) -> Explainer:
        found = self._explainers.get(name)
        if found is None:
            raise NotFound(
                f"explainer {name!r} is not served here",
                why=f"served are {', '.join(sorted(self._explainers)) or 'none'}",
                fix="correct the name, or serve that explainer",
            )
        return found

    def _explained(self, explainer: Explainer, row: Frame, deadline: Deadline) -> Explained:
        key = (explainer.digest, explainer.model_digest, row.digest)
        with self._lock:
            kept = self._cache.get(key)
            if kept is not None:
                self._cache.move_to_end(key)
                return kept
        explained = explainer.explain(row, deadline=deadline)
        if explained.status == "ok":
            with self._lock:
                self._cache[key] = explained
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        return explained

    def _told(self, request: ExplainRequest, explainer: Explainer, explained: Explained) -> Explanation:
        return msgspec.structs.replace(
            self._blank(request),
            method=explained.method,
            output_name=explained.output_name,
            output_unit=explained.output_unit,
            prediction=explained.prediction,
            base_value=explained.base_value,
            attributions=explained.attributions,
            anchor=explained.anchor or AnchorRule(),
            reasons=reasons(explained, explainer.schema, explainer.target, top_k=self._top_k),
            fidelity=explained.fidelity,
            error_bound=explained.error_bound,
            model_digest=explainer.model_digest,
            background_digest=explainer.background_digest,
            seed=explainer.seed,
            status=explained.status,
        )

    def _failed(self, request: ExplainRequest, error: str) -> Explanation:
        return msgspec.structs.replace(self._blank(request), method=request.explainer, status="failed", error=error)

    def _blank(self, request: ExplainRequest) -> Explanation:
        return Explanation(
            schema_version=records.SCHEMA_VERSION,
            id=request.id,
            namespace=request.namespace,
            service=request.service,
            model=request.model,
            revision=request.revision,
            endpoint=request.endpoint,
            instance_id=request.instance_id,
            request_id=request.request_id,
            pipeline=request.pipeline,
            step=request.step,
            t_created=self._clock_ns(),
            traceparent=request.traceparent,
        )


def _row(request: ExplainRequest, explainer: Explainer) -> Frame:
    try:
        values = msgspec.json.decode(request.inputs_json, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"explain request {request.id}: inputs_json",
            why=str(error),
            fix='send one JSON object of a row: {"feature": value, ...}',
        ) from error
    return from_rows([values], explainer.schema)
