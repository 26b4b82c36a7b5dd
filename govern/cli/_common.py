"""What the command modules share: options, running async work, errors on three lines."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Annotated, Any, Final, NoReturn

import typer
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from rich.console import Console

from govern.errors import GovernError
from govern.telemetry.http import serve_metrics
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics
from govern.telemetry.tracing import tracer_provider

BusOption = Annotated[
    str,
    typer.Option("--bus", envvar="GOVERN_BUS", help="kafka://host:port or embedded:///absolute/file.db"),
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", envvar="GOVERN_NAMESPACE", help="Tenant.")]
InstanceIdOption = Annotated[
    str | None,
    typer.Option(
        "--group-instance-id",
        envvar="GOVERN_GROUP_INSTANCE_ID",
        help="This process's name in its consumer group on Kafka; a restart under it moves no partition.",
    ),
]
SessionTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--session-timeout-s",
        envvar="GOVERN_SESSION_TIMEOUT_S",
        help="Seconds without a sign of life after which its partitions go to others, on Kafka; 10 by default.",
    ),
]
OtlpOption = Annotated[
    str | None,
    typer.Option("--otlp", envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="OTLP/HTTP collector, http://host:4318"),
]
MetricsPortOption = Annotated[
    int, typer.Option("--metrics-port", envvar="GOVERN_METRICS_PORT", help="Port of /metrics; 0 = none.")
]

MetricsHostOption = Annotated[
    str,
    typer.Option(
        "--metrics-host", envvar="GOVERN_METRICS_HOST", help="Address that /metrics listens on; 0.0.0.0 in a pod."
    ),
]

#: The shell's convention for a command that was used wrongly or given bad input.
EXIT_BAD_INPUT: Final = 2
EXIT_FAILURE: Final = 1


def fail(error: GovernError) -> NoReturn:
    """Print the error on three lines (what, why, fix) to stderr and exit."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/] ", end="")
    console.print(error.what, markup=False, style="bold")
    console.print("[yellow]  why:[/] ", end="")
    console.print(error.why, markup=False)
    console.print("[green]  fix:[/] ", end="")
    console.print(error.fix, markup=False)
    raise SystemExit(EXIT_BAD_INPUT if 400 <= error.http_status < 500 else EXIT_FAILURE)


def telemetry(
    stack: ExitStack, service: str, registry: CollectorRegistry, metrics_at: tuple[str, int], otlp: str | None
) -> tuple[Metrics, TracerProvider]:
    """The process's metrics, traces and logs.

    Args:
        metrics_at: host and port that /metrics is served on until the stack unwinds; port 0 = not served.
        otlp: base URL of an OTLP/HTTP collector; None = spans go nowhere.
    """
    configure(level="INFO", json=not sys.stderr.isatty())
    metrics = Metrics(registry)
    provider = tracer_provider(service, endpoint=otlp)
    stack.callback(provider.shutdown)
    host, port = metrics_at
    if port:
        stack.enter_context(serve_metrics(registry, host=host, port=port))
    return metrics, provider


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run async work to its end. Ctrl-C and SIGTERM cancel it, and it winds down as it sees fit."""

    async def guarded() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise

    asyncio.run(guarded())


def run_until_signal(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `serve(stop)`; SIGINT and SIGTERM set `stop`, and it is expected to finish what it began and return."""

    async def guarded() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        await serve(stop)

    asyncio.run(guarded())
