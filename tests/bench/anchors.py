"""How good the native anchors are, beside alibi's: `.venv-alibi/bin/python tests/bench/anchors.py [ROWS]`.

Both explain the same people of the ACS sample with the same model and background. Every anchor is then measured in two
ways on data that neither has seen:

- perturbed: 20,000 fresh rows of the paper's D(z|A), whole background rows that get the anchored features;
- people: of the other people of the sample whom the anchor covers, the share with the same answer of the model.

"kept" counts the explanations that claim to have reached tau, and how many of those truly lie above tau - slack.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier

from explainers.anchors import AnchorTabular
from explainers.base import Explained, Explainer
from explainers.deadline import NEVER
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern.columns import encode
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.explainers.measured import fulfils, perturbed

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")
BACKGROUND, EXPLAINED_FROM = 3000, 4000
TAU, SLACK = 0.95, 0.05


def load() -> tuple[Frame, npt.NDArray[np.int64]]:
    table = pq.read_table(SAMPLE)
    features, columns = [], []
    for name in (name for name in table.column_names if name not in NOT_FEATURES):
        values = np.array(table[name].to_pylist(), dtype=object)
        if name == "AGEP":
            feature = Feature(name=name, kind="numeric")
        else:
            feature = Feature(name=name, kind="categorical", datatype="BYTES", categories=tuple(sorted(set(values))))
        features.append(feature)
        columns.append(encode(feature, values).values)
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="employment", features=tuple(features))
    return Frame(schema=schema, columns=tuple(columns)), table["employed"].to_numpy()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    frame, employed = load()
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    predictor = SklearnPredictor.of(model.fit(frame.matrix()[:BACKGROUND], employed[:BACKGROUND]))
    background, others = frame.take(slice(0, BACKGROUND)), frame.take(slice(BACKGROUND, len(frame)))
    answers = Target().answers(predictor.predict(others))
    explainers: list[Explainer] = [AnchorTabular(tau=TAU, slack=SLACK, seed=1).fit(background, predictor)]
    if importlib.util.find_spec("alibi") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from explainers.alibi import AlibiAnchorTabular
        for beam in (1, 4):
            fitted = AlibiAnchorTabular(threshold=TAU, beam_size=beam, seed=1).fit(background, predictor)
            explainers.append(fitted)
    positions = np.random.default_rng(3).choice(np.arange(EXPLAINED_FROM, len(frame)), size=count, replace=False)
    print(f"{count} people, background {BACKGROUND}, tau {TAU}, slack {SLACK}")
    print(f"{'':24}{'s/row':>7}{'length':>8}{'coverage':>10}{'perturbed':>11}{'people':>8}  kept")
    for number, explainer in enumerate(explainers):
        name = explainer.method + ("" if number == 0 else f" beam {(1, 4)[number - 1]}")
        began = time.monotonic()
        found = [explainer.explain(frame.take([position]), deadline=NEVER) for position in positions.tolist()]
        seconds = (time.monotonic() - began) / count
        report(
            name, seconds, found, [frame.take([p]) for p in positions.tolist()], background, others, answers, predictor
        )


def report(
    name: str,
    seconds: float,
    found: Sequence[Explained],
    rows: Sequence[Frame],
    background: Frame,
    others: Frame,
    answers: npt.NDArray[np.intp],
    predictor: SklearnPredictor,
) -> None:
    on_perturbed, on_people, coverage = [], [], []
    for explained, row in zip(found, rows, strict=True):
        answer = Target().answers(predictor.predict(row))[0]
        drawn = predictor.predict(perturbed(background, row, explained.predicates))
        on_perturbed.append(float((Target().answers(drawn) == answer).mean()))
        covered = fulfils(others, row, explained.predicates)
        coverage.append(float(covered.mean()))
        if covered.sum() > 1:  # the person alone proves nothing
            on_people.append(float((answers[covered] == answer).mean()))
    claimed = [i for i, one in enumerate(found) if one.anchor is not None and one.anchor.precision >= TAU]
    kept = sum(on_perturbed[i] >= TAU - SLACK for i in claimed)
    length = np.mean([len(one.predicates) for one in found])
    print(
        f"{name:24}{seconds:7.2f}{length:8.2f}{np.mean(coverage):10.4f}{np.mean(on_perturbed):11.3f}"
        f"{np.mean(on_people):8.3f}  {kept} of {len(claimed)}"
    )


if __name__ == "__main__":
    main()
