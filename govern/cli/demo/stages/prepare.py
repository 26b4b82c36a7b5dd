"""Stages 1 and 2: the people and the model; the watchers that learn what is normal."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from govern.artifact import MANIFEST
from govern.cli.demo import people
from govern.cli.demo.commands import run
from govern.cli.demo.model import MODEL, PROBABILITY, THRESHOLD, Classifier, train
from govern.cli.demo.story import Story
from govern.cli.demo.work import Work
from govern.frame import Frame
from govern.schema import FeatureSchema
from govern.table import Table, frame_of, infer_schema

#: Name by which it is asked for, and method.
EXPLAINERS: Final = (("shap", "shap_tree"), ("anchors", "anchors"))
#: What reasons call the model's number.
WORDS: Final = "probability of work"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the later stages need of the first two.

    Attributes:
        reference: the rows of 2015.
        classifier: the model in this process, used to plan the traffic, never to answer it.
    """

    schema: FeatureSchema
    reference: Frame
    classifier: Classifier


def train_model(story: Story, work: Work, *, seed: int) -> Prepared:
    """Describe the people of 2015, and train the model on them."""
    story.stage(
        "Real people, and a model that decides about them",
        "A public job-placement programme admits the people for whom a model expects that they will find work. The"
        " people are real: answers to the US census survey in Massachusetts. The programme is made up.",
    )
    table = people.read("reference")
    schema = describe(table)
    reference = frame_of(Table("reference.parquet", table), schema)
    employed = table[people.LABEL].to_numpy().astype(np.int64)
    work.schema.write_text(schema.to_yaml(), encoding="utf-8")
    work.model.write_bytes(train(reference, employed, seed=seed))
    classifier = Classifier(work.model)
    probability = classifier.probabilities(reference.matrix())[:, 1]
    pq.write_table(table.append_column(PROBABILITY, pa.array(probability)), work.reference)
    protected = [feature.words for feature in schema.features if feature.protected]
    story.facts(
        [
            (
                "learned from",
                f"{len(reference):,} people of 16 to 66 in 2015, {np.mean(employed):.0%} of them employed",
            ),
            ("looks at", f"{len(schema.features)} answers: {', '.join(feature.words for feature in schema.features)}"),
            (
                "protected",
                f"{', '.join(protected)}: by law or by decency no ground for a refusal; marked wherever they show",
            ),
            ("decides", f"admitted when the probability of work is {THRESHOLD:.0%} or more, refused below"),
        ]
    )
    return Prepared(schema, reference, classifier)


def describe(table: pa.Table) -> FeatureSchema:
    """The schema that `govern fit` would infer, with the survey's words for its columns and codes."""
    words = yaml.safe_load((people.DATA / "titles.yaml").read_text(encoding="utf-8"))
    return infer_schema(
        Table("reference.parquet", table),
        MODEL,
        exclude=["id", "year", people.LABEL],
        protected=[name for name, one in words.items() if one.get("protected")],
        titles={name: one["title"] for name, one in words.items()},
        labels={name: one["labels"] for name, one in words.items() if "labels" in one},
    )


async def fit_watchers(story: Story, work: Work, *, namespace: str) -> None:
    """Fit the pipeline's detectors and the explainers from the reference, with the commands that a user types."""
    story.stage(
        "Watchers learn what is normal",
        "Three detectors take 2015 as their yardstick. Drift: do the people of the last thousand differ from those of"
        " 2015, and in which answer? Outlier: is one person unlike all of them? Adversarial: is the model's answer odd"
        " for such a person, as if the answers had been chosen to push it over the line?"
        " Two explainers are fitted, too.",
    )
    text = (people.DATA / "pipeline.yaml").read_text(encoding="utf-8")
    work.pipeline.write_text(re.sub(r"(?m)^  namespace: .*$", f"  namespace: {namespace}", text), encoding="utf-8")
    fit = ["fit", str(work.reference), "--pipeline", str(work.pipeline), "--output", f"{PROBABILITY}={PROBABILITY}"]
    commands = [fit, *(_explainer(work, name, method) for name, method in EXPLAINERS)]
    for command in commands:
        story.command(command, work.folder)
    async with asyncio.TaskGroup() as tasks:
        for command in commands:
            tasks.create_task(run(command))
    shown = await run(["pipeline", "show", str(work.pipeline)])
    story.quote(shown.output)
    story.check("every step and every explainer has its fitted artifact", _complete(work))


def _explainer(work: Work, name: str, method: str) -> list[str]:
    return [
        *("explain", "fit", method, str(work.reference), "--schema", str(work.schema)),
        *("--out", str(work.explainers / name), "--model", str(work.model)),
        *("--output", PROBABILITY, "--threshold", str(THRESHOLD), "--words", WORDS),
    ]


def _complete(work: Work) -> bool:
    steps = [work.folder / "artifacts" / step for step in ("drift", "outlier", "adversarial")]
    explainers = [work.explainers / name for name, _ in EXPLAINERS]
    return all((folder / MANIFEST).exists() for folder in (*steps, *explainers))
