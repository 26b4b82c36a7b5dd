"""docs/capture/grpc.md: its example runs, from a caller to the frame that a detector sees."""

from __future__ import annotations

import re
import shlex
import uuid
from pathlib import Path

import grpc
import numpy as np
import yaml

from govern.codecs.inference import decode
from govern.mirror.config import MirrorConfig
from govern.schema import Feature, FeatureSchema
from tests.mirror.conftest import DEADLINE_S, govern, until
from tests.mirror.grpc.conftest import INFER, STREAM_INFER, infer_request, model_server
from tests.mirror.test_shipper import on_the_bus, scrape
from tests.services.process import Process, free_port, listening

PAGE = (Path(__file__).parents[3] / "docs" / "capture" / "grpc.md").read_text(encoding="utf-8")
(CONFIG,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(PROXY, SHIP) = [shlex.split(line) for line in PAGE.splitlines() if line.startswith("govern mirror ")]
SCHEMA = FeatureSchema(
    format_version=1, model="income", features=tuple(Feature(name=name, kind="numeric") for name in ("x0", "x1", "x2"))
)


async def test_the_example_from_the_caller_to_the_frame(spool_dir: Path, tmp_path: Path, embedded_url: str) -> None:
    port, metrics = free_port(), free_port()
    with model_server() as (_, upstream):
        settings = yaml.safe_load(CONFIG)
        assert MirrorConfig.model_validate(settings).grpc.listen == settings["grpc"]["listen"]
        settings["grpc"] = {"listen": f"127.0.0.1:{port}", "upstream": f"http://127.0.0.1:{upstream}"}
        settings |= {"spool_dir": str(spool_dir), "bus": embedded_url, "metrics_listen": f"127.0.0.1:{metrics}"}
        file = tmp_path / "mirror.yaml"
        file.write_text(yaml.safe_dump(settings))

        def as_typed(words: list[str]) -> list[str]:
            return govern(*(str(file) if word == "mirror.yaml" else word for word in words[1:]))

        proxy = Process(as_typed(PROXY), log=tmp_path / "proxy.log")
        shipper = Process(as_typed(SHIP), log=tmp_path / "ship.log")
        try:
            proxy.start(lambda _: listening(port))
            shipper.start(lambda text: "shipping" in text)
            unary, stream = str(uuid.uuid4()), str(uuid.uuid4())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                channel.unary_unary(INFER)(infer_request(id=unary).SerializeToString(), timeout=DEADLINE_S)
                sent = [infer_request(id=stream).SerializeToString()] * 2
                assert len(list(channel.stream_stream(STREAM_INFER)(iter(sent), timeout=DEADLINE_S))) == 2
            config = MirrorConfig.model_validate(settings)
            until(
                lambda: scrape(f"http://127.0.0.1:{metrics}/metrics").get("capture_shipped_total") == 2, "both records"
            )
            found = {inference.request_id: inference for _, inference in await on_the_bus(config)}
        finally:
            proxy.stop()
            shipper.stop()
    assert found.keys() == {unary, stream}
    one = decode(found[unary], SCHEMA)
    assert [float(column[0]) for column in one.columns] == [0, 1, 2]
    assert np.array_equal(one.outputs["y"], [[3.0]])
    two = decode(found[stream], SCHEMA)
    assert len(two) == 2
