"""Fetch and build what the tests start: Kafka's jars, Helm, the OpenTelemetry Collector. Once, outside any test."""

from __future__ import annotations

import sys
import time

from tests.services import helm, kafka, otlp


def main() -> int:
    for name, make in (
        ("Apache Kafka, from Maven Central", kafka.jars),
        ("Helm, built by Go", helm.helm),
        ("the OpenTelemetry Collector, built by Go", otlp.collector),
    ):
        print(f"== {name} ...", end=" ", flush=True)
        began = time.monotonic()
        make()
        print(f"ready after {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
