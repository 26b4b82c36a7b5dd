"""A whole run as an SRE sees it: real Prometheus scrapes every process, real spans reach a real collector."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest

import dashboards
from govern.bus import open_bus
from govern.bus.topics import topic
from govern.cli.demo import people, traffic
from govern.cli.demo.model import MODEL, SERVICE
from govern.cli.demo.stack import Stack
from govern.cli.demo.stages.prepare import Prepared
from govern.cli.demo.stages.proof import mint
from govern.cli.demo.work import Work
from govern.codecs import cloudevents
from govern.ids import uuid7
from govern.record import Feedback
from govern.telemetry import spans
from tests.e2e.conftest import NAMESPACE, SIZES, create_topics, with_count_windows
from tests.mirror.sink import events
from tests.services.otlp import OtlpReceiver, ReceivedSpan
from tests.services.process import Process, free_port, listening
from tests.services.prometheus import Prometheus

pytestmark = [pytest.mark.e2e, pytest.mark.prometheus]

RULES = Path(dashboards.__file__).with_name("generated") / "rules.yaml"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
DEADLINE_S = 120.0
#: What does not happen in the run below: no explanation fails, no message is deleted before it is recorded or judged, a
#: step that is served has room for whoever calls, no pipeline joins streams, and none is refused.
NOT_IN_THE_RUN = (
    "govern_explanation_failures_total",
    "govern_audit_gaps_total",
    "govern_serve_refused_total",
    "govern_join_dropped_requests_total",
    "govern_join_late_parts_total",
    "govern_pipelines_refused",
    "govern_pipeline_lost_records_total",
)


class Beside(NamedTuple):
    """Ports of what runs beside the demo."""

    sink: int
    steps: int
    steps_metrics: int
    inline: int


def scrape_config(stack: Stack, beside: Beside) -> str:
    at = stack.at
    addresses = (
        at.shipper_metrics,
        at.worker_metrics,
        at.explainer_metrics,
        at.writer_metrics,
        at.audit_metrics,
    )
    own = (f"127.0.0.1:{beside.sink}", f"127.0.0.1:{beside.steps_metrics}")
    targets = ", ".join(f'"{address.removeprefix("http://")}"' for address in (*addresses, *own))
    return f"""
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
scrape_configs:
  - job_name: govern
    static_configs: [{{targets: [{targets}]}}]
rule_files: [rules.yaml]
"""


@contextlib.contextmanager
def running_beside(stack: Stack) -> Iterator[Beside]:
    """A sink that records into the demo's spool, as another model's own logger is served, too; the demo's pipeline with
    its steps served; and a second proxy, which asks one of them and one that is not there."""
    beside = Beside(*(free_port() for _ in Beside._fields))
    capture = ("--namespace", NAMESPACE, "--spool-dir", str(stack.work.spool))
    config = stack.work.pipeline.with_name("inline.yaml")
    step = "when: request, deadline_ms: 5000, on_failure: open, on_alarm: annotate"
    config.write_text(
        f"{{service: {SERVICE}, model: {MODEL}, endpoint: shadow, upstream: {stack.at.model}, "
        f"inline: {{url: 'http://127.0.0.1:{beside.steps}', pipeline: job-placement, "
        f"steps: [{{step: outlier, {step}}}, {{step: absent, {step}}}]}}}}"
    )
    commands = {
        "sink": ["mirror", "sink", *capture, "--listen", f"127.0.0.1:{beside.sink}", "--sink-join-s", "1"],
        "steps": [
            *("serve", str(stack.work.pipeline), "--http", f"127.0.0.1:{beside.steps}"),
            *("--metrics-port", str(beside.steps_metrics)),
        ],
        "inline": ["mirror", "proxy", "--config", str(config), *capture, "--listen", f"127.0.0.1:{beside.inline}"],
    }
    with contextlib.ExitStack() as stopping:
        for (name, command), port in zip(commands.items(), (beside.sink, beside.steps, beside.inline), strict=True):
            log = stack.work.logs / f"beside-{name}.log"
            process = Process([sys.executable, "-P", "-m", "govern.cli.main", *command], log=log)
            process.start(lambda _, port=port: listening(port))
            stopping.callback(process.stop)
        yield beside


async def wave_of_judgements(stack: Stack, prepared: Prepared, beside: Beside) -> None:
    """People whom a step judges before the model is called, one of them strange, and a call of a step that is wrong."""
    person, *others = people.replay(10)[:5]
    odd = replace(person, answers={**dict.fromkeys(person.answers, "1"), "AGEP": person.answers["AGEP"]})
    calls = traffic.what_if("inline", others, prepared.schema).calls
    calls = (*calls, traffic.Call(f"odd-{uuid7()}", "default", (odd,), traffic.body([odd], prepared.schema)))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{beside.inline}", timeout=DEADLINE_S) as client:
        for call in calls:
            await send(client, call)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{beside.steps}", timeout=DEADLINE_S) as client:
        named = "/v2/models/job-placement-outlier/infer"
        body = json.loads(calls[0].body)
        body["inputs"][0]["shape"][0] += 1
        body["inputs"][0]["data"] += body["inputs"][0]["data"][:1]
        wrong = await client.post(named, json=body)
        assert wrong.status_code == 400, wrong.text
        right = await client.post(named, content=calls[0].body, headers={"content-type": "application/json"})
        assert right.status_code == 200, right.text


async def wave_of_events(port: int, number: int) -> None:
    """Every fate that an event can have, but to be refused."""
    whole, alone = f"whole-{number}", f"alone-{number}"
    feedback = events.seldon("feedback", whole, b'{"reward": 1}')
    for event in (
        events.kserve("request", whole),
        events.kserve("request", whole),  # delivered again
        events.kserve("response", whole),
        events.kserve("request", alone),
        feedback,
        events.kserve("request", whole, type="io.example.other"),
    ):
        assert (await events.send(port, event)).status == 202
    assert (await events.send(port, events.post({}, b"{}"))).status == 400


async def keep_asking(stack: Stack, prepared: Prepared, beside: Beside) -> None:
    """One wave of traffic after the other, until cancelled: rates need counters that grow."""
    token = await mint(stack)
    async with httpx.AsyncClient(base_url=stack.at.audit, headers={"authorization": f"Bearer {token}"}) as auditor:
        for number in itertools.count():
            await wave(stack, prepared)
            await wave_of_events(beside.sink, number)
            await wave_of_judgements(stack, prepared, beside)
            read = await auditor.get("/v1/audit/entries", params={"limit": 1}, timeout=DEADLINE_S)
            assert read.status_code == 200, read.text


async def wave(stack: Stack, prepared: Prepared) -> None:
    """260 people, a request that the model answers and no detector can read, one that nobody can read, a label."""
    everybody = people.replay(100)
    calls = traffic.what_if("x", everybody[:260], prepared.schema).calls
    year = traffic.ordinary_year("y", everybody, prepared.schema, tampered=(), rng=np.random.default_rng(1))
    strange = next(call for call in year.calls if call.kind == "fraction")
    async with httpx.AsyncClient(base_url=stack.at.proxy, timeout=DEADLINE_S) as client:
        for call in calls:
            await send(client, call)
        await send(client, strange)
        unreadable = await client.post(f"/v2/models/{MODEL}/infer", content=b"{", headers={"x-request-id": "broken"})
        assert unreadable.status_code == 400
    label = Feedback(
        schema_version=1,
        id=uuid7(),
        namespace=NAMESPACE,
        service=SERVICE,
        model=MODEL,
        request_id=calls[0].request_id,
        label="1",
        t_feedback=1,
    )
    async with open_bus(stack.bus_url) as bus:
        await bus.publish(topic(NAMESPACE, "feedback"), [cloudevents.to_message(label, source="/test")])


async def send(client: httpx.AsyncClient, call: traffic.Call, **headers: str) -> None:
    response = await client.post(
        f"/v2/models/{MODEL}/infer",
        content=call.body,
        headers={"content-type": "application/json", "x-request-id": call.request_id, **headers},
    )
    assert response.status_code == 200, response.text


async def traced(stack: Stack, prepared: Prepared) -> None:
    """A request within a trace of the caller's, and as many more as fill the window that it falls into.

    It is as a broken form sends it, the same answer everywhere: an outlier, which is explained.
    """
    person, *others = people.replay(10)[: SIZES["outlier"] + 1]
    odd = replace(person, answers={**dict.fromkeys(person.answers, "1"), "AGEP": person.answers["AGEP"]})
    calls = traffic.what_if("traced", others, prepared.schema).calls
    async with httpx.AsyncClient(base_url=stack.at.proxy, timeout=DEADLINE_S) as client:
        first = traffic.Call(f"traced-{uuid7()}", "default", (odd,), traffic.body([odd], prepared.schema))
        await send(client, first, traceparent=f"00-{TRACE_ID}-{SPAN_ID}-01")
        for call in calls:
            await send(client, call)


def finite(prometheus: Prometheus, promql: str) -> bool:
    """Whether a query finds something of the run; the zero that a panel shows when there is nothing does not count."""
    if not any(metric in promql for metric in NOT_IN_THE_RUN):
        promql = promql.replace(" or vector(0)", "")
    return any(math.isfinite(float(one["value"][1])) for one in prometheus.query(promql))


@pytest.mark.timeout(600)
async def test_every_panel_query_and_the_trace_of_a_real_run(
    copy_of_work: Callable[[], Work],
    prepared: tuple[Work, Prepared],
    prometheus: Callable[..., Prometheus],
    otlp_receiver: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_receiver.endpoint)
    work = copy_of_work()
    with_count_windows(work.pipeline)
    await create_topics(work.bus_url, NAMESPACE)
    async with Stack.running(work, namespace=NAMESPACE, bus_url=work.bus_url, database_url=work.database_url) as stack:
        with running_beside(stack) as beside:
            config = scrape_config(stack, beside)
            server = await asyncio.to_thread(prometheus, config, files={"rules.yaml": RULES.read_text()})
            asking = asyncio.create_task(keep_asking(stack, prepared[1], beside))
            await panels_show_the_run(server)
            asking.cancel()
            await asyncio.wait({asking})
        received = await seen_in_one_trace(stack, prepared[1], otlp_receiver)
    captured = [one for one in received if one.trace_id == TRACE_ID and one.name == spans.CAPTURE]
    assert {one.parent_id for one in captured} == {SPAN_ID}


async def seen_in_one_trace(stack: Stack, prepared: Prepared, receiver: OtlpReceiver) -> list[ReceivedSpan]:
    """Send the traced request until every stage's span is about it: a span links to the newest of its batch only."""
    for _ in range(5):
        await traced(stack, prepared)
        with contextlib.suppress(TimeoutError):
            return await asyncio.to_thread(
                receiver.wait_for,
                lambda all_: {spans.CAPTURE, spans.JUDGE, spans.EXPLAIN, spans.AUDIT} <= about_the_trace(all_),
                deadline_s=DEADLINE_S / 2,
            )
    raise AssertionError(f"of the trace are {about_the_trace(receiver.spans())} only")


async def panels_show_the_run(server: Prometheus) -> None:
    # The run has one bus.
    queries = [(title, promql) for title, promql in dashboards.queries() if "govern_destination_" not in promql]
    assert len(queries) > 25
    empty = queries
    try:
        async with asyncio.timeout(DEADLINE_S):
            while empty := [
                (title, promql) for title, promql in empty if not await asyncio.to_thread(finite, server, promql)
            ]:
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"panels that show nothing: {[title for title, _ in empty]}: {empty}") from None
    rules = await asyncio.to_thread(server.get, "/api/v1/rules")
    health = {rule["name"]: rule["health"] for group in rules["groups"] for rule in group["rules"]}
    assert set(health.values()) == {"ok"}
    assert len(health) == len(dashboards.alerts())


def about_the_trace(received: list[ReceivedSpan]) -> set[str]:
    """Names of the spans that are in the caller's trace, or linked to one that is."""
    return {one.name for one in received if TRACE_ID in (one.trace_id, *(trace for trace, _ in one.links))}
