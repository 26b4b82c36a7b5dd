"""`govern worker`: run pipelines over the captured streams of a namespace."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.cli._artifacts import TrustedOption, trusting
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
from govern.pipeline.groups import PLACEMENT
from govern.runtime import garbage
from govern.runtime.chained.linked import link
from govern.runtime.fleet.follower import Follower
from govern.runtime.fleet.shelf import shelf
from govern.runtime.fleet.together import Together, check_together
from govern.runtime.flow.feedback import learning
from govern.runtime.flows import PATIENCE_S
from govern.runtime.follow import Files, following
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker


def worker(
    bus: BusOption,
    files: Annotated[list[Path] | None, typer.Argument(help="Pipeline files (YAML).")] = None,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Run what `govern pipeline apply` put on the bus, too.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            envvar="GOVERN_FLEET_CACHE", help="Folder for the fleet's artifacts; a temporary one if left out."
        ),
    ] = None,
    namespace: NamespaceOption = "default",
    group: Annotated[str, typer.Option(help="Consumer group; one for each set of pipelines.")] = "govern-worker",
    group_instance_id: InstanceIdOption = None,
    session_timeout_s: SessionTimeoutOption = None,
    placement: Annotated[
        str,
        typer.Option(
            envvar="GOVERN_PLACEMENT",
            help=f"Run the steps that are placed here, and pipelines whose label {PLACEMENT} says so; "
            "what has no placement if left out.",
        ),
    ] = "",
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
    trusted: TrustedOption = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that a called model may be away before dead letters.")
    ] = PATIENCE_S,
) -> None:
    """Run pipelines over the captured streams of a namespace, until SIGTERM or Ctrl-C.

    The files are read anew when they change, and on SIGHUP; the fleet's pipelines are followed on the bus.
    """
    files = files or []
    if not files and not fleet:
        raise ConfigError("nothing to run", why="no pipeline file is given", fix="name files, or follow the --fleet")

    check = trusting(trusted or [])

    def read() -> list[LoadedPipeline]:
        found = [loaded for file in files for loaded in load(file, placement=placement, check=check)]
        check_together(found, namespace)
        # What the files read may be of the fleet, and come later; without one it never does.
        for error in link(found).refused.values() if not fleet else ():
            raise error
        if not fleet and not any(one.placement == placement for one in found):
            raise ConfigError(
                f"no pipeline is placed at {placement!r}" if placement else "every pipeline is placed elsewhere",
                why=f"the placements are {', '.join(sorted({one.placement or 'none' for one in found}))}",
                fix=f"correct --placement, a step's `placement` or the label {PLACEMENT}",
            )
        return found

    at = f"{group}-{placement}" if placement else group
    kept_as = f"{at}/{group_instance_id}" if group_instance_id else None
    followed_files = Files(files)
    of_files = read()

    async def serve(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            metrics, provider = telemetry(
                stack, "govern-worker", CollectorRegistry(), (metrics_host, metrics_port), otlp
            )
            reporter = Reporter(metrics, provider.get_tracer("govern.worker") if otlp else None)
            async with open_bus(
                bus, client_id="govern-worker", instance_id=group_instance_id, session_timeout_s=session_timeout_s
            ) as connection:
                together = Together(partial(reporter.refused, namespace))
                pipelines = together.files(of_files)
                follower = (
                    Follower(connection, namespace, stack.enter_context(shelf(cache)), placement, check=check)
                    if fleet
                    else None
                )
                if follower is not None:
                    pipelines = together.fleet(await follower.start())
                garbage.settle()
                worker = Worker(
                    bus=connection,
                    namespace=namespace,
                    pipelines=pipelines,
                    reporter=reporter,
                    group=group,
                    placement=placement,
                    patience_s=patience,
                )
                async with AsyncExitStack() as followed:
                    if files:
                        await followed.enter_async_context(
                            following(followed_files, read, lambda found: worker.take_over(together.files(found)))
                        )
                    if follower is not None:
                        await followed.enter_async_context(
                            follower.following(lambda found: worker.take_over(together.fleet(found)))
                        )
                    feedback = partial(open_bus, bus, client_id="govern-worker-feedback")
                    await followed.enter_async_context(learning(feedback, namespace, kept_as, worker.learners))
                    await worker.run(stop)

    run_until_signal(serve)
