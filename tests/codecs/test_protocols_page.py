"""docs/capture/protocols.md: its examples decode to the row that it promises, and its table is the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from govern.codecs.inference import decode
from govern.codecs.protocols import CODECS
from govern.record import Inference, Payload
from govern.schema import FeatureSchema

PAGE = (Path(__file__).parents[2] / "docs" / "capture" / "protocols.md").read_text(encoding="utf-8")
ROW = re.findall(r"each of the following is the row `(.*)`", PAGE)
SCHEMA = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = [
    (section.split("\n", 1)[0], example)
    for section in PAGE.split("\n### ")[1:]
    for example in re.findall(r"```json\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
]


@pytest.mark.parametrize(("protocol", "example"), EXAMPLES)
@pytest.mark.parametrize("declared", [True, False])
def test_an_example_is_the_row(protocol: str, example: str, declared: bool) -> None:
    request = Payload(body=example.encode(), size=len(example))
    record = Inference(id="i", protocol=protocol if declared else "unknown", status_code=200, request=request)
    frame = decode(record, FeatureSchema.from_yaml(*SCHEMA))
    assert [frame.row(row) for row in range(len(frame))] == [json.loads(*ROW)]


def test_the_table_has_the_protocols_that_are_decoded() -> None:
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE) == [*CODECS, "unknown"]
    assert {protocol for protocol, _ in EXAMPLES} == {"v1", "v2", "seldon-v1", "mlflow"}


def test_the_python_example_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "protocols.md", "exec"), {})
