"""What the reader of Seldon's topics counts, as Prometheus metrics that add up in every scrape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from govern.mirror.config import MirrorConfig
from govern.mirror.exported import withheld_bodies
from govern.record import Inference
from govern.telemetry.metrics import Metrics, labels


class SeldonMetrics:
    """Counts inferences once their transaction is committed.

    Args:
        updating: held while several counters change together.
    """

    def __init__(self, metrics: Metrics, updating: AbstractContextManager[object], config: MirrorConfig) -> None:
        self._metrics = metrics
        self._updating = updating
        self._config = config

    def committed(self, captured: Sequence[Inference], sampled_out: Sequence[Inference], lost: int) -> None:
        """Count records, inferences that sampling leaves out, and halves whose message is there no more."""
        metrics = self._metrics
        with self._updating:
            for record in captured:
                at = self._labels(record)
                metrics.capture_withheld.labels(*at).inc(withheld_bodies(record))
                metrics.capture_seen.labels(*at).inc()
                metrics.capture_captured.labels(*at).inc()
                metrics.capture_shipped.labels(*at).inc()
                if record.missing:
                    metrics.sink_orphaned.labels(*at).inc()
            for at in map(self._labels, sampled_out):
                metrics.capture_seen.labels(*at).inc()
                metrics.capture_sampled_out.labels(*at).inc()
            if lost:
                at = labels(namespace=self._config.namespace)
                metrics.capture_seen.labels(*at).inc(lost)
                metrics.capture_dropped.labels(*at).inc(lost)

    def lag(self, lags: Iterable[int]) -> None:
        """Show how many of Seldon's messages are not read yet."""
        self._metrics.consumer_lag.labels(*labels(namespace=self._config.namespace)).set(sum(lags))

    def refused(self, standing: bool) -> None:
        """Show whether the configuration file, as it is now, is refused."""
        self._metrics.capture_rules_refused.labels(*labels(namespace=self._config.namespace)).set(standing)

    @staticmethod
    def _labels(record: Inference) -> tuple[str, ...]:
        return labels(
            namespace=record.namespace,
            service=record.service,
            model=record.model,
            revision=record.revision,
            endpoint=record.endpoint,
        )
