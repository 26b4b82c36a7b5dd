"""`govern worker`: run pipelines over the captured streams of a namespace."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.cli._common import (
    BusOption,
    InstanceIdOption,
    MetricsHostOption,
    MetricsPortOption,
    NamespaceOption,
    OtlpOption,
    SessionTimeoutOption,
    run_until_signal,
    telemetry,
)
from govern.errors import ConfigError
from govern.runtime import garbage
from govern.runtime.follow import following
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker


def worker(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML).")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
    group: Annotated[str, typer.Option(help="Consumer group; one for each set of pipelines.")] = "govern-worker",
    group_instance_id: InstanceIdOption = None,
    session_timeout_s: SessionTimeoutOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
) -> None:
    """Run pipelines over the captured streams of a namespace, until SIGTERM or Ctrl-C.

    The files are read anew when they change, and on SIGHUP.
    """

    def read() -> list[LoadedPipeline]:
        found = [loaded for file in files for loaded in load(file)]
        _check_together(found, namespace)
        return found

    pipelines = read()
    garbage.settle()

    async def serve(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            metrics, provider = telemetry(
                stack, "govern-worker", CollectorRegistry(), (metrics_host, metrics_port), otlp
            )
            reporter = Reporter(metrics, provider.get_tracer("govern.worker") if otlp else None)
            async with open_bus(
                bus, client_id="govern-worker", instance_id=group_instance_id, session_timeout_s=session_timeout_s
            ) as connection:
                worker = Worker(
                    bus=connection, namespace=namespace, pipelines=pipelines, reporter=reporter, group=group
                )
                async with following(files, read, worker.take_over):
                    await worker.run(stop)

    run_until_signal(serve)


def _check_together(pipelines: list[LoadedPipeline], namespace: str) -> None:
    names = [one.plan.name for one in pipelines]
    for one in pipelines:
        if names.count(one.plan.name) > 1:
            raise ConfigError(
                f"pipeline {one.plan.name!r} is given twice",
                why="a worker tells its pipelines apart by name",
                fix="rename one (metadata.name)",
            )
        if one.plan.namespace != namespace:
            raise ConfigError(
                f"pipeline {one.plan.name!r} belongs to namespace {one.plan.namespace!r}",
                why=f"this worker serves {namespace!r}",
                fix=f"set metadata.namespace, or start the worker with --namespace {one.plan.namespace}",
            )
