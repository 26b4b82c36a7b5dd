"""A worker with detectors that alibi-detect saved: adopted by the command, judged with apart, killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from govern import plugins
from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.cli import main
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.frame import Frame
from govern.record import DeadLetter, Inference, R, Verdict, decode
from govern.runtime.loader import load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.schema import Feature, FeatureSchema
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.runtime.conftest import START_NS, payload

cd = pytest.importorskip("alibi_detect.cd", reason="the extra [alibi] is not installed", exc_type=ImportError)
od = pytest.importorskip("alibi_detect.od", reason="the extra [alibi] is not installed", exc_type=ImportError)
saving = pytest.importorskip("alibi_detect.saving", reason="the extra [alibi] is not installed", exc_type=ImportError)

pytestmark = pytest.mark.alibi

DEADLINE_S = 60.0
WINDOW = 40
WINDOWS = 6
PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: watch, namespace: NAMESPACE}
spec:
  source: {service: income, model: income}
  schema: schema.yaml
  steps:
    - name: cvm
      detector: {type: alibi_detect.saved_drift, artifact: artifacts/cvm}
      inputs: [watch.inputs]
      batch: {size: 40}
    - name: waits
      detector: {type: alibi_detect.saved_drift, artifact: artifacts/waits}
      inputs: [watch.inputs]
      batch: {size: 40}
    - name: deadly
      detector: {type: alibi_detect.saved_drift, artifact: artifacts/deadly}
      inputs: [watch.inputs]
      batch: {size: 40}
    - name: learns
      detector: {type: alibi_detect.Mahalanobis, artifact: artifacts/learns}
      inputs: [watch.inputs]
      batch: {size: 40}
"""


def inference(i: int, rows: np.ndarray, namespace: str) -> Inference:
    request = v2.encode_request([Tensor(name, "FP64", np.ascontiguousarray(rows[:, n])) for n, name in enumerate("ab")])
    return Inference(
        schema_version=1,
        id=f"call-{i}",
        request_id=f"call-{i}",
        namespace=namespace,
        service="income",
        model="income",
        protocol="v2",
        t_request=START_NS + i * 10**9,
        t_response=START_NS + i * 10**9 + 1,
        status_code=200,
        request=payload(request),
        response=payload(v2.encode_response("income", [Tensor("y", "FP64", np.zeros(len(rows)))])),
    )


async def test_a_worker_lives_through_the_death_of_its_detectors(
    tmp_path: Path, embedded_url: str, unique: str
) -> None:
    gate, entered = str(tmp_path / "gate"), str(tmp_path / "entered")

    def waits(x: np.ndarray) -> np.ndarray:
        """At the third window, until somebody opens a gate."""
        import os
        import time

        while x[0, 0] > 1000.0 and not os.path.exists(gate):
            with open(f"{entered}.draft", "w") as file:
                file.write(str(os.getpid()))
            os.replace(f"{entered}.draft", entered)
            time.sleep(0.01)
        return x

    def deadly(x: np.ndarray) -> np.ndarray:
        import os

        if x[0, 0] > 1000.0:
            os.kill(os.getpid(), 9)
        return x

    reference = np.random.default_rng(0).normal(size=(100, 2))
    schema = FeatureSchema(
        format_version=1, model="income", features=tuple(Feature(name=name, kind="numeric") for name in "ab")
    )
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("NAMESPACE", unique))
    directly = {
        "cvm": cd.CVMDrift(reference, p_val=0.05),
        "waits": cd.KSDrift(reference, p_val=0.05, preprocess_fn=waits),
        "deadly": cd.KSDrift(reference, p_val=0.05, preprocess_fn=deadly),
    }
    for name, detector in directly.items():
        saving.save_detector(detector, tmp_path / "saved" / name)
        words = ["adopt", tmp_path / "saved" / name, "--schema", tmp_path / "schema.yaml"]
        words += ["--out", tmp_path / "artifacts" / name]
        told = CliRunner().invoke(main.build("detector"), ["detector", *map(str, words)], catch_exceptions=False)
        assert told.exit_code == 0
        assert f"Adopted {type(detector).__name__} (drift)" in told.stdout

    learner = plugins.load(plugins.DETECTORS, "alibi_detect.Mahalanobis")(n_components=2)
    learner.fit(Frame(schema, tuple(reference.T))).save(tmp_path / "artifacts" / "learns")

    rng = np.random.default_rng(1)
    windows = [rng.normal(loc=0.4 * (n % 2), size=(WINDOW, 2)) for n in range(WINDOWS)]
    windows[2][0, 0] = 2000.0
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=1))
        messages = [cloudevents.to_message(inference(i, rows, unique), source="/t") for i, rows in enumerate(windows)]
        await bus.publish(topic(unique, "inferences"), messages)
        metrics = Reporter(Metrics(CollectorRegistry()))
        worker = Worker(bus=bus, namespace=unique, pipelines=load(tmp_path / "pipeline.yaml"), reporter=metrics)
        stop = asyncio.Event()

        async def read(kind: type[R], stream: str, count: int) -> list[R]:
            while len(found := await settled(bus, topic(unique, stream))) < count:
                await asyncio.sleep(0.05)
            return [decode(kind, message.value or b"") for message in found]

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            while not os.path.exists(entered):
                await asyncio.sleep(0.01)
            pid = int(Path(entered).read_text())
            os.kill(pid, signal.SIGSTOP)
            Path(gate).touch()
            os.kill(pid, signal.SIGKILL)
            verdicts = await read(Verdict, "verdicts", 4 * WINDOWS - 1)
            letters = await read(DeadLetter, "dead-letter", 1)
            stop.set()

    of = {(one.step, one.window.first_offset): one for one in verdicts}
    assert len(of) == len(verdicts) == 4 * WINDOWS - 1, "each window once, but the one that cannot be judged"
    learns = od.Mahalanobis(n_components=2)
    learns.infer_threshold(reference, threshold_perc=99.0)
    for offset, window in enumerate(windows):  # from window to window, as the worker remembers it
        told = learns.predict(window)["data"]["instance_score"]
        found = [one.score for one in of.pop(("learns", offset)).instances]
        assert found == pytest.approx(told.tolist(), rel=1e-6)
    for (step, offset), verdict in of.items():
        said = directly[step].predict(windows[offset])["data"]
        assert verdict.method == "alibi_detect.saved_drift"
        assert verdict.alarm == bool(said["is_drift"])
        assert [one.p_value for one in verdict.features] == pytest.approx(said["p_val"].tolist(), abs=1e-6)
    assert len({one.alarm for one in of.values()}) == 2
    (letter,) = letters
    assert (letter.step, letter.source_offset) == ("deadly", 2)
    assert "died twice" in letter.what
