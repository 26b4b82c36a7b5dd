"""`govern explain`: fit explainers, serve explanations, ask for one."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from prometheus_client import CollectorRegistry
from rich.console import Console

from explainers.answer import DEFAULT_DEADLINE_S, Answerer
from explainers.api import create_app
from explainers.artifacts import load
from explainers.catalogue import Catalogue
from explainers.fit import fit
from explainers.jobs import ExplainWorker
from explainers.target import Target
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
from govern.cli._explainers import (
    ModelFileOption,
    ModelNameOption,
    ModelUrlOption,
    ModelVersionOption,
    loaded_explainers,
    predictor_of,
)
from govern.errors import BadInput
from govern.record import ExplainRequest
from govern.web.listening import listen, serve

app = typer.Typer()

#: Beside the audit API's 8090.
DEFAULT_PORT: Final = 8091

ExplainersArgument = Annotated[
    Path, typer.Argument(help="Folder of fitted explainers; each is served under its folder's name.")
]


@app.command("fit")
def fit_command(
    method: Annotated[str, typer.Argument(help="shap_tree, shap_kernel, anchors, alibi.AnchorTabular ...")],
    reference: Annotated[Path, typer.Argument(help="CSV or Parquet table that the background is drawn from.")],
    schema: Annotated[Path, typer.Option("--schema", help="Feature schema (YAML), as `govern fit` writes it.")],
    out: Annotated[Path, typer.Option("--out", help="Artifact folder to write; its name is the explainer's.")],
    model: ModelFileOption = None,
    output: Annotated[str, typer.Option(help="Model output to explain; the only one by default.")] = "",
    column: Annotated[int, typer.Option(help="Its column (class); -1 = the last.")] = -1,
    unit: Annotated[str, typer.Option(help="What the output is: probability or raw.")] = "probability",
    threshold: Annotated[float, typer.Option(help="The answer is positive from here on.")] = 0.5,
    classes: Annotated[bool, typer.Option("--classes", help="The answer is the largest column; no threshold.")] = False,
    less_is_better: Annotated[
        bool, typer.Option("--less-is-better", help="A low output is the hoped-for one.")
    ] = False,
    words: Annotated[str, typer.Option(help="What reasons call the output.")] = "score",
    param: Annotated[list[str] | None, typer.Option("--param", help="Parameter of the explainer: NAME=VALUE.")] = None,
) -> None:
    """Fit an explainer: a background sample from a reference, and the model where the explainer looks inside it."""
    if unit not in ("probability", "raw"):
        raise BadInput(f"--unit {unit!r}", why="it is probability or raw", fix="correct it")
    target = Target(
        output=output,
        column=column,
        unit="raw" if unit == "raw" else "probability",
        threshold=None if classes else threshold,
        favourable="low" if less_is_better else "high",
        words=words,
    )
    params = dict(_param(one) for one in param or [])
    explainer = fit(method, reference=reference, schema=schema, out=out, target=target, model=model, params=params)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Fitted {method} to [bold]{out}[/], digest {explainer.digest[:12]}.")


@app.command("serve")
def serve_command(
    explainers: ExplainersArgument,
    bus: BusOption,
    namespace: NamespaceOption = "default",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = DEFAULT_PORT,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Compute here, too.")] = True,
    group_instance_id: InstanceIdOption = None,
    session_timeout_s: SessionTimeoutOption = None,
    audit_db: Annotated[
        str,
        typer.Option(
            "--audit-db",
            envvar="GOVERN_AUDIT_DB",
            help="Find requests by id in this audit log; without it the bus is searched.",
        ),
    ] = "",
    audit_keys: Annotated[
        Path | None,
        typer.Option("--audit-keys", envvar="GOVERN_AUDIT_KEYS", help="Key folder: also explain what the bus let go."),
    ] = None,
    model_url: ModelUrlOption = "",
    model_name: ModelNameOption = "",
    model_version: ModelVersionOption = "",
    model: ModelFileOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
) -> None:
    """Serve the explanation API, with a worker in the same process, until SIGTERM or Ctrl-C."""

    async def main(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(listen(host, port))
            metrics, provider = telemetry(
                stack, "govern-explainer", CollectorRegistry(), (metrics_host, metrics_port), otlp
            )
            catalogue = Catalogue.read(explainers)
            loaded = (
                stack.enter_context(loaded_explainers(explainers, model_url, model_name, model_version, model))
                if worker
                else {}
            )
            async with (
                open_bus(
                    bus,
                    client_id="govern-explainer",
                    instance_id=group_instance_id,
                    session_timeout_s=session_timeout_s,
                ) as connection,
                asyncio.TaskGroup() as tasks,
            ):
                inferences = None
                if audit_db:
                    from govern.cli._audited import audited_inferences

                    inferences = stack.enter_context(audited_inferences(connection, audit_db, namespace, audit_keys))
                api = create_app(bus=connection, namespace=namespace, catalogue=catalogue, inferences=inferences)
                tasks.create_task(serve(api, listening, stop))
                address = listening.getsockname()
                typer.echo(f"Explanation API on http://{address[0]}:{address[1]}/docs", err=True)
                if worker:
                    tracer = provider.get_tracer("govern.explainer") if otlp else None
                    job = ExplainWorker(
                        bus=connection,
                        namespace=namespace,
                        answerer=Answerer(loaded),
                        metrics=metrics,
                        tracer=tracer,
                    )
                    tasks.create_task(job.run(stop))

    run_until_signal(main)


@app.command("worker")
def worker_command(
    explainers: ExplainersArgument,
    bus: BusOption,
    namespace: NamespaceOption = "default",
    group: Annotated[
        str, typer.Option(help="Consumer group; its workers serve the same explainers.")
    ] = "govern-explainers",
    group_instance_id: InstanceIdOption = None,
    session_timeout_s: SessionTimeoutOption = None,
    model_url: ModelUrlOption = "",
    model_name: ModelNameOption = "",
    model_version: ModelVersionOption = "",
    model: ModelFileOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
) -> None:
    """Answer explain requests from the bus, without an API, until SIGTERM or Ctrl-C."""

    async def main(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            metrics, provider = telemetry(
                stack, "govern-explainer", CollectorRegistry(), (metrics_host, metrics_port), otlp
            )
            loaded = stack.enter_context(loaded_explainers(explainers, model_url, model_name, model_version, model))
            async with open_bus(
                bus, client_id="govern-explainer", instance_id=group_instance_id, session_timeout_s=session_timeout_s
            ) as connection:
                await ExplainWorker(
                    bus=connection,
                    namespace=namespace,
                    answerer=Answerer(loaded),
                    metrics=metrics,
                    tracer=provider.get_tracer("govern.explainer") if otlp else None,
                    group=group,
                ).run(stop)

    run_until_signal(main)


@app.command("row")
def row_command(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder of a fitted explainer.")],
    values: Annotated[str, typer.Argument(help='The row as JSON: {"age": 62, ...}; - reads standard input.')],
    model_url: ModelUrlOption = "",
    model_name: ModelNameOption = "",
    model_version: ModelVersionOption = "",
    model: ModelFileOption = None,
    deadline_s: Annotated[float, typer.Option("--deadline-s", min=0.1, help="Seconds allowed.")] = DEFAULT_DEADLINE_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole explanation.")] = False,
) -> None:
    """Explain one row and print the reasons."""
    from explainers.api_models import ExplanationView

    with httpx.Client() as client:
        explainer = load(
            artifact, predictor=predictor_of(artifact, client, model_url, model_name, model_version, model)
        )
        text = typer.get_text_stream("stdin").read() if values == "-" else values
        request = ExplainRequest(id="row", explainer=artifact.name, inputs_json=text, deadline_s=deadline_s)
        explanation = Answerer({artifact.name: explainer}).explain(request)
    if as_json:
        typer.echo(ExplanationView.of(explanation).model_dump_json(indent=2))
        return
    typer.echo(f"{explainer.target.words}: {explanation.prediction:.3f} (on average {explanation.base_value:.3f})")
    for reason in explanation.reasons:
        typer.echo(f"- {reason.text}")
    if explanation.status == "deadline":
        typer.echo("Time ran out: this is the best so far. Allow more with --deadline-s.")


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise BadInput(f"--param {text!r}", why="it is NAME=VALUE", fix="write, for example, --param tau=0.9")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
