"""The agents' counters as Prometheus metrics: summed over agents, never going backwards, consistent in every scrape."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from govern.mirror.agent import AgentInfo, Counts
from govern.mirror.inline.told import told
from govern.mirror.standing import Tally
from govern.record import Inference
from govern.telemetry.metrics import Metrics, labels

_log: Final = logging.getLogger(__name__)

Labels = tuple[str, ...]
_FILE: Final = "retired.json"


class SnapshotRegistry(CollectorRegistry):
    """A registry whose scrapes see the counters between two updates, never within one.

    So `seen = captured + sampled_out + dropped` holds in every scrape, although scrapes come from other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updating = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self.updating:
            return iter(list(super().collect()))


class _Retired(msgspec.Struct, kw_only=True):
    """What dead agents had counted, by labels; `last` is the newest of them, in case its file is still there."""

    last: str = ""
    totals: list[tuple[Labels, tuple[int, int, int]]] = []


class CaptureMetrics:
    """Exports what agents counted. Agents that are gone are remembered in the spool's folder.

    Args:
        updating: held while the metrics change; the lock of the `SnapshotRegistry` they are in.
    """

    def __init__(self, metrics: Metrics, updating: threading.Lock, spool_dir: Path) -> None:
        self._metrics = metrics
        self._updating = updating
        self._path = spool_dir / _FILE
        self._last, self._retired = self._load()
        self._shown: dict[Labels, Counts] = {}
        self._shown_beside: dict[Labels, Tally] = {}
        self._refused: set[Labels] = set()

    def retire(self, info: AgentInfo, counts: Counts) -> None:
        """Remember the final counts of a dead agent, before its file is deleted.

        Raises:
            OSError: they cannot be written.
        """
        if self._last == info.agent:  # remembered before a crash that came before the deletion
            return
        key = _labels(info)
        totals = {**self._retired, key: self._retired.get(key, Counts()) + counts}
        state = _Retired(last=info.agent, totals=[(name, (*count,)) for name, count in totals.items()])
        draft = self._path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(state))
        os.replace(draft, self._path)
        self._last, self._retired = info.agent, totals

    def update(
        self,
        agents: Mapping[str, tuple[AgentInfo, Counts]],
        pending: Mapping[str, int],
        *,
        shipped: Iterable[Inference] = (),
        destinations: Mapping[str, tuple[Sequence[tuple[AgentInfo, Tally]], Mapping[str, int]]] | None = None,
    ) -> None:
        """Show the agents' counts now.

        Args:
            agents: by name, those whose files exist, with their counts.
            pending: by name, records captured and not yet on the bus.
            shipped: records that have come onto the bus since the last update.
            destinations: by name, what became of all records there, by the labels of their agents, and what of each
                agent it has not yet.
        """
        totals = dict(self._retired)
        waiting: dict[Labels, int] = dict.fromkeys(totals, 0)
        for name, (info, counts) in agents.items():
            key = _labels(info)
            if name != self._last:
                totals[key] = totals.get(key, Counts()) + counts
            waiting[key] = waiting.get(key, 0) + pending.get(name, 0)
        arrived: Counter[Labels] = Counter()
        withheld: Counter[Labels] = Counter()
        said: Counter[tuple[Labels, str]] = Counter()
        for record in shipped:
            arrived[_labels(record)] += 1
            said.update((_labels(record, step), word) for step, word in told(record.response.headers))
            withheld[_labels(record)] += withheld_bodies(record)
        beside = {
            (*key, name): (tally, waiting_there)
            for name, (tallies, pending_there) in (destinations or {}).items()
            for key, (tally, waiting_there) in _by_labels(agents, tallies, pending_there).items()
        }
        with self._updating:
            for key, total in totals.items():
                shown = self._shown.get(key, Counts())
                self._metrics.capture_seen.labels(*key).inc(total.seen - shown.seen)
                self._metrics.capture_captured.labels(*key).inc(total.captured - shown.captured)
                self._metrics.capture_sampled_out.labels(*key).inc(total.sampled_out - shown.sampled_out)
                self._metrics.capture_dropped.labels(*key).inc(total.dropped - shown.dropped)
            for key, count in waiting.items():
                self._metrics.spool_pending.labels(*key).set(count)
            for key, count in arrived.items():
                self._metrics.capture_shipped.labels(*key).inc(count)
                self._metrics.capture_withheld.labels(*key).inc(withheld[key])
            for (key, word), count in said.items():
                judged = 0 if word == "unjudged" else count
                self._metrics.inline_judged.labels(*key).inc(judged)
                self._metrics.inline_alarms.labels(*key).inc(count if word == "alarm" else 0)
                self._metrics.inline_unjudged.labels(*key).inc(count - judged)
            for key in self._shown_beside.keys() - beside.keys():
                self._metrics.forget_destination(key)
            for key, (tally, waiting_there) in beside.items():
                before = self._shown_beside.get(key, Tally())
                self._metrics.destination_sent.labels(*key).inc(tally.sent - before.sent)
                self._metrics.destination_filtered.labels(*key).inc(tally.filtered - before.filtered)
                self._metrics.destination_dropped.labels(*key).inc(tally.dropped - before.dropped)
                self._metrics.destination_pending.labels(*key).set(waiting_there)
        self._shown = totals
        self._shown_beside = {key: tally for key, (tally, _) in beside.items()}

    def refused(self, namespace: str, service: str, agents: Iterable[AgentInfo], *, shipper: bool) -> None:
        """Show who refuses the configuration file: agents, and the shipper itself."""
        found = Counter([_labels(info) for info in agents])
        found[labels(namespace=namespace, service=service)] += shipper
        with self._updating:
            for key in self._refused | found.keys():
                self._metrics.capture_rules_refused.labels(*key).set(found[key])
        self._refused |= found.keys()

    def corrupt(self, info: AgentInfo, count: int) -> None:
        self._metrics.spool_corrupt.labels(*_labels(info)).inc(count)

    def held(self, namespace: str, service: str, n_bytes: int) -> None:
        self._metrics.spool_bytes.labels(*labels(namespace=namespace, service=service)).set(n_bytes)

    def _load(self) -> tuple[str, dict[Labels, Counts]]:
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=_Retired)
        except FileNotFoundError:
            return "", {}
        except msgspec.DecodeError as error:
            _log.error("%s is damaged, counting starts anew: %s", self._path, error)
            return "", {}
        return state.last, {name: Counts(*count) for name, count in state.totals}


def withheld_bodies(record: Inference) -> int:
    """How many of its two bodies a record was not allowed to hold."""
    return sum(one.action == "withhold" and one.path in ("request", "response") for one in record.redactions)


def _by_labels(
    agents: Mapping[str, tuple[AgentInfo, Counts]],
    tallies: Iterable[tuple[AgentInfo, Tally]],
    pending: Mapping[str, int],
) -> dict[Labels, tuple[Tally, int]]:
    """A destination's tallies and what it has not yet, by labels."""
    found: dict[Labels, tuple[Tally, int]] = {}
    for info, tally in tallies:
        known, waiting = found.get(_labels(info), (Tally(), 0))
        found[_labels(info)] = (known.plus(tally), waiting)
    for name, (info, _) in agents.items():
        known, waiting = found.get(_labels(info), (Tally(), 0))
        found[_labels(info)] = (known, waiting + pending[name])
    return found


def _labels(info: AgentInfo | Inference, step: str = "") -> Labels:
    return labels(
        namespace=info.namespace,
        service=info.service,
        model=info.model,
        revision=info.revision,
        endpoint=info.endpoint,
        step=step,
    )
