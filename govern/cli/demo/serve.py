"""The demo's model as a server: `python -m govern.cli.demo.serve MODEL.skops SCHEMA.yaml PORT`.

Any server that speaks Open Inference Protocol V2 could stand here; govern does not know this one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import uvicorn
from msgspec.structs import replace

from govern.cli.demo.model import MODEL, PREDICTION, PROBABILITY, REVISION, THRESHOLD, Classifier
from govern.codecs.frames import to_frame
from govern.codecs.tensor import Tensor
from govern.runtime.serving.model import ModelMetadata, TensorMetadata
from govern.runtime.serving.rest import create_app
from govern.schema import FeatureSchema


class Employment:
    """Answers the probability of work, and the decision: one tensor (n, 1) for each feature in."""

    def __init__(self, classifier: Classifier, schema: FeatureSchema) -> None:
        self._classifier = classifier
        # A model does not mind a fractional age, whatever its schema says.
        self._schema = replace(
            schema,
            features=tuple(replace(one, datatype="FP64") if one.kind == "numeric" else one for one in schema.features),
        )

    @property
    def metadata(self) -> ModelMetadata:
        return ModelMetadata(
            name=MODEL,
            versions=(REVISION,),
            platform="scikit-learn",
            inputs=tuple(
                TensorMetadata(name=one.name, datatype=one.datatype, shape=(-1, 1)) for one in self._schema.features
            ),
            outputs=(
                TensorMetadata(name=PROBABILITY, datatype="FP64", shape=(-1, 2)),
                TensorMetadata(name=PREDICTION, datatype="INT64", shape=(-1, 1)),
            ),
        )

    def infer(self, inputs: list[Tensor]) -> list[Tensor]:
        probabilities = self._classifier.probabilities(to_frame(inputs, self._schema).matrix())
        admitted = (probabilities[:, 1:] >= THRESHOLD).astype(np.int64)
        return [Tensor(PROBABILITY, "FP64", probabilities), Tensor(PREDICTION, "INT64", admitted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("schema", type=Path)
    parser.add_argument("port", type=int)
    asked = parser.parse_args()
    model = Employment(Classifier(asked.model), FeatureSchema.load(asked.schema))
    uvicorn.run(
        create_app({MODEL: model}, title="The demo's model"),
        host="127.0.0.1",
        port=asked.port,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
