"""`govern fit`: a schema and the detectors of a pipeline, from a reference table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from detectors.fit import Report, fit, jobs, require_usable
from detectors.power import power as measure
from govern.bus.topics import topic
from govern.cli._common import BusOption, NamespaceOption
from govern.cli._files import write_whole
from govern.cli._power import Measured, grid, remarks, sizes_of, windows
from govern.cli._query import query
from govern.cli._references import of_file, of_table, of_topic, recorded, require_one, tell, wanted
from govern.cli._report import page
from govern.cli._suggestion import new_file, write_suggestion
from govern.cli._times import ranges
from govern.errors import BadInput, ConfigError
from govern.frame import Frame
from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.graph import fed, graph
from govern.schema import FeatureSchema
from govern.table import read

#: The schema's file where no pipeline names another.
SCHEMA_FILE: Final = "schema.yaml"


def fit_command(
    reference: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet table that stands for normal; or see --from-topic and --sql.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of schema and artifacts; the pipeline file's by default.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Whose inputs these are; the pipeline's by default.")] = "",
    pipeline: Annotated[Path | None, typer.Option("--pipeline", help="Pipeline file whose detectors to fit.")] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="Schema file; kept when it exists.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Column that is no input: id, label.")] = None,
    protected: Annotated[list[str] | None, typer.Option(help="Column with a protected characteristic.")] = None,
    pii: Annotated[list[str] | None, typer.Option(help="Column with personal data.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="Model output and its column: NAME=COLUMN.")] = None,
    rows: Annotated[
        int, typer.Option(min=0, help="Draw this many rows of the reference; 0 = all, of a topic 100,000.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    step: Annotated[
        list[str] | None, typer.Option(help="Fit this detector only; the reference is what its inputs bring.")
    ] = None,
    from_topic: Annotated[
        bool, typer.Option("--from-topic", help="Learn from what the topic has of the model instead of a table.")
    ] = False,
    sql: Annotated[
        str,
        typer.Option(
            "--sql", envvar="GOVERN_FIT_SQL", help="Learn from a database: postgresql+psycopg://… or sqlite:///…"
        ),
    ] = "",
    query_text: Annotated[str, typer.Option("--query", help="What to select from it: the rows of the reference.")] = "",
    bus: BusOption = "",
    namespace: NamespaceOption = "default",
    service: Annotated[
        str, typer.Option("--service", help="Of the topic, only this one's; the pipeline's by default.")
    ] = "",
    revision: Annotated[str, typer.Option("--revision", help="Of the topic, only this one of the model.")] = "",
    since: Annotated[
        str, typer.Option("--from", help="Answers given then or later: a time (RFC 3339), or partition:offset.")
    ] = "",
    until: Annotated[str, typer.Option("--to", help="Answers given before this time or place.")] = "",
    exclude_range: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-range", help="Time whose rows are left out: 2025-12-24T00:00:00Z/2025-12-27T00:00:00Z."
        ),
    ] = None,
    time_column: Annotated[
        str, typer.Option("--time-column", help="Of a table: the column that has each row's time; no input.")
    ] = "",
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Write a schema and a pipeline file (--pipeline) that fit the rows.")
    ] = False,
    detect: Annotated[
        float, typer.Option(min=0.01, help="Of --suggest: the shift to see in 80 % of windows, in standard deviations.")
    ] = 0.2,
    power: Annotated[
        bool, typer.Option("--power", help="Say how small a shift each detector sees, its false alarms and its cost.")
    ] = False,
    sizes: Annotated[
        str, typer.Option("--windows", help="Rows of the windows to say it for: 50,200,1000. The step's own, too.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option("--report", help="Page of plots to write, with what --power says: FILE.html.")
    ] = None,
    rows_per_day: Annotated[
        int, typer.Option(min=0, help="That come: for false alarms by the month. By the rows' times if left out.")
    ] = 0,
) -> None:
    """Describe a reference in a schema, and fit the detectors of a pipeline from it.

    The schema is inferred when its file does not exist; a file that is there is kept as it is, so edit it freely.
    """
    require_one(reference, from_topic=from_topic, bus=bus, sql=sql, query=query_text)
    asked, left_out = windows(sizes), ranges(exclude_range or [])
    console = Console(highlight=False, soft_wrap=True)
    outputs = dict(_output(one) for one in output or [])
    if suggest:
        pipeline = new_file(pipeline, out)
    pipelines = load_pipelines(pipeline, schema=False) if pipeline is not None and not suggest else []
    model, pipelines = _of_model(model, pipelines, pipeline)
    folder = _folder(out, pipeline)
    fitted = {one.name: _fitted(one, step or []) for one in pipelines}
    work = [job for one in pipelines for job in jobs(one, folder) if job.step in fitted[one.name]]

    path = schema or folder / ((pipelines[0].spec.schema_path if pipelines else None) or SCHEMA_FILE)
    marks = {"protected": protected or [], "pii": pii or []}
    if not from_topic:
        found = of_table(
            read(reference) if reference is not None else query(sql, query_text),
            of_file(reference) if reference is not None else None,
            model,
            path,
            **marks,
            query=query_text,
            exclude=exclude or [],
            outputs=outputs,
            time_column=time_column,
            ranges=left_out,
            rows=rows,
            seed=seed,
        )
    else:
        _require_no_columns(exclude, outputs, time_column)
        services = {one.spec.source.service for one in pipelines if one.spec.source is not None}
        if not service and len(services) == 1:
            (service,) = services
        needed = {name for job in work for name in job.detector.needs_outputs}
        asked_of = wanted(model, service, revision, since, until, left_out)
        with _progress(console) as progress:
            drawn = recorded(
                bus, namespace, asked_of, path, **marks, rows=rows, seed=seed, outputs=needed, progress=progress
            )
        found = of_topic(drawn, asked_of, topic(namespace, "inferences"), seed)
    tell(found, console)
    if not rows_per_day and found.rows_per_day:
        rows_per_day = found.rows_per_day
        console.print(f"{rows_per_day:,} rows a day, by their times; --rows-per-day says otherwise.")
    frame, described = found.frame, found.schema
    if suggest:
        assert pipeline is not None
        with _progress(console) as progress:
            task = progress.add_task("windows", total=None)
            write_suggestion(
                found, path, pipeline, model, service, detect, rows_per_day, console,
                lambda rows: progress.update(task, advance=1, description=f"window of {rows:,} rows"),
            )  # fmt: skip
        return
    if work:
        require_usable(work, frame)
    if not found.kept:
        write_whole(path, [described.to_yaml().encode()])
    console.print(_said_of_schema(described, path, found.origin, kept=found.kept))
    left = [
        one.name for each in pipelines for one in each.spec.steps if one.detector and one.name not in fitted[each.name]
    ]
    if left and not step:
        console.print(f"Left out: {', '.join(left)}. Other steps make what they read; fit each on that, with --step.")
    if not work:
        console.print("No detector was fitted" + ("." if pipelines else ": name a pipeline file with --pipeline."))
        return
    reports = []
    with _progress(console) as progress:
        task = progress.add_task("fitting", total=len(work))
        for job, done in zip(work, fit(work, frame, lineage=found.lineage), strict=True):
            progress.update(task, advance=1, description=escape(job.step))
            reports.append(done)
    console.print(_grid(reports))
    if power or report is not None:
        measured = _measured(reports, {one.name: one for one in pipelines}, frame, asked, console)
        console.print(grid(measured, rows_per_day))
        for line in remarks(measured):
            console.print(escape(line))
        if report is not None:
            write_whole(report, [page(measured, frame, found.origin, rows_per_day).encode()])
            console.print(f"The report is in {escape(str(report))}.")
    console.print(f"Artifacts are in {escape(str(folder))}, where the pipeline file names them.")


def _measured(
    reports: Sequence[Report], pipelines: Mapping[str, Pipeline], frame: Frame, asked: Sequence[int], console: Console
) -> list[Measured]:
    found = []
    work = [(one, sizes_of(one.step, pipelines[one.pipeline], asked)) for one in reports]
    with _progress(console) as progress:
        task = progress.add_task("power", total=sum(1 if one.kind != "drift" else len(sizes) for one, sizes in work))
        for one, sizes in work:
            progress.update(task, description=f"power of {escape(one.step)}")
            measured = measure(one.path, frame, sizes, progress=lambda done: progress.update(task, advance=done))
            found.append(Measured(one, measured))
    return found


def _fitted(pipeline: Pipeline, steps: Sequence[str]) -> set[str]:
    """The detectors to fit: those that are named, else those that read the rows of the watched model."""
    flow = graph(pipeline)
    detectors = {node.name: node for node in flow.steps if node.role == "detector"}
    for name in steps:
        if name not in detectors:
            raise BadInput(
                f"--step {name}",
                why=f"the detectors of pipeline {pipeline.name!r} are {', '.join(detectors) or 'none'}",
                fix="correct the name",
            )
    if steps or pipeline.spec.source is None:
        return set(steps) or set(detectors)
    return {name for name, node in detectors.items() if not fed(node, flow)}


def _output(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise BadInput(
            f"--output {text!r}", why="it names a model output and its column", fix="write --output NAME=COLUMN"
        )
    return name, column


def _require_no_columns(exclude: Sequence[str] | None, outputs: Mapping[str, str], time_column: str) -> None:
    if exclude or outputs or time_column:
        raise BadInput(
            "--exclude, --output and --time-column name columns of a table",
            why="a topic has requests, of which every column is an input, and responses, whose tensors have names",
            fix="leave them out",
        )


def _folder(out: Path | None, pipeline: Path | None) -> Path:
    if out is not None:
        return out
    if pipeline is None:
        raise BadInput("--out is missing", why="no pipeline file gives the folder", fix="add --out DIR")
    return pipeline.parent


def _of_model(model: str, pipelines: list[Pipeline], file: Path | None) -> tuple[str, list[Pipeline]]:
    """The model's name and its pipelines; the name defaults to the only one that the file's pipelines watch."""
    watched = sorted({one.model for one in pipelines})
    if not model:
        if len(watched) != 1:
            raise BadInput(
                "--model is missing",
                why=f"{file} watches {', '.join(watched)}" if watched else "no pipeline file says it",
                fix="add --model NAME",
            )
        model = watched[0]
    mine = [one for one in pipelines if one.model == model]
    if pipelines and not mine:
        raise ConfigError(
            f"{file}: no pipeline watches model {model!r}",
            why=f"they watch {', '.join(watched)}",
            fix="correct --model, or `spec.source.model`",
        )
    return model, mine


def _said_of_schema(schema: FeatureSchema, path: Path, origin: str, *, kept: bool) -> str:
    kinds = [feature.kind for feature in schema.features]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return (
        f"{'Kept' if kept else 'Inferred'} [bold]{escape(str(path))}[/]: {len(kinds)} features ({counts}), "
        f"from {escape(origin)}."
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _grid(reports: list[Report]) -> Grid:
    grid = Grid(
        box=SIMPLE,
        pad_edge=False,
        caption="threshold: a p-value for drift, a statistic where each row is looked at, else a score",
        caption_justify="left",
    )
    for heading in ("step", "method"):
        grid.add_column(heading)
    for heading in ("rows", "threshold", "seconds"):
        grid.add_column(heading, justify="right")
    grid.add_column("digest")
    for one in reports:
        grid.add_row(
            escape(one.step), escape(one.method), f"{one.rows:,}", f"{one.threshold:.4g}", f"{one.seconds:.2f}",
            one.digest[:10],
        )  # fmt: skip
    return grid
