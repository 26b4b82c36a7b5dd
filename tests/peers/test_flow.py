"""A pipeline that calls MLServer as it is shipped, over REST and over gRPC, with other steps around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from govern.codecs.tensor import Tensor
from govern.runtime.flow.build import load_models
from govern.runtime.flow.errors import StepFailed
from tests.peers.conftest import HOST, MLServer

pytestmark = pytest.mark.peers

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: loans}
spec:
  steps:
    - name: rest
      model: {url: "http://HTTP", name: NAME}
    - name: grpc
      model: {url: "grpc://GRPC", name: income, version: v1}
    - name: agreed
      combiner: {method: mean, output: income}
      inputs: [rest.outputs.predict, grpc.outputs.predict]
  output: {steps: [agreed]}
"""


async def test_mlserver_is_a_step_of_a_pipeline(mlserver: MLServer, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    text = PIPELINE.replace("HTTP", f"{HOST}:{mlserver.http}").replace("GRPC", f"{HOST}:{mlserver.grpc}")
    file.write_text(text.replace("NAME", "income"))
    rows = Tensor("x", "FP32", np.array([[1, 2, 3], [-4, -5, -6]], np.float32))
    (loans,) = load_models(file)
    try:
        (income,) = await loans.infer([rows], request_id="asked")
        assert (income.name, income.datatype) == ("income", "FP64")
        assert income.data.ravel().tolist() == [1, 0]
    finally:
        await loans.close()
    file.write_text(text.replace("NAME", "nowhere"))
    (loans,) = load_models(file)
    try:
        with pytest.raises(StepFailed, match=r"pipeline 'loans', step 'rest': .*HTTP 404: Model nowhere not found"):
            await loans.infer([rows])
    finally:
        await loans.close()
