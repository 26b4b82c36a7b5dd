"""Fit every detector of a pipeline from one reference."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from detectors import artifacts
from detectors.lineage import before, record
from detectors.online.detector import OnlineDrift
from govern import plugins
from govern.detection import Detector
from govern.errors import BadInput, ConfigError
from govern.frame import MISSING, Frame
from govern.pipeline import Pipeline
from govern.record import Kind
from govern.schema import FeatureSchema
from govern.table import Table, infer_schema

#: Rows by which a detector that looks at each has a threshold: windows are rarely larger, and scoring them is quick.
_BEGINNING: Final = 500


@dataclass(frozen=True, slots=True)
class Job:
    """A step's detector, constructed and not yet fitted.

    Attributes:
        pipeline, step: their names.
        path: where its artifact goes.
    """

    pipeline: str
    step: str
    detector: Detector
    path: Path


@dataclass(frozen=True, slots=True)
class Report:
    """A step's detector, fitted, stored and read back.

    Attributes:
        threshold: `stated_threshold`.
        seconds: that fitting took.
    """

    pipeline: str
    step: str
    kind: Kind
    method: str
    rows: int
    threshold: float
    digest: str
    seconds: float
    path: Path


def jobs(pipeline: Pipeline, folder: Path) -> list[Job]:
    """The detectors of a pipeline; artifact paths are relative to `folder`.

    Raises:
        ConfigError: a detector refuses its parameters, or two steps share an artifact.
        MissingExtra: a detector needs an optional dependency that is absent.
    """
    found: list[Job] = []
    for step in pipeline.spec.steps:
        if step.detector is None:
            continue
        where = f"pipeline {pipeline.name!r}, step {step.name!r}"
        constructor = plugins.load(plugins.DETECTORS, step.detector.type)
        try:
            detector = constructor(**step.detector.params)
        except TypeError as error:
            raise ConfigError(
                f"{where}: detector {step.detector.type!r} refuses its parameters",
                why=str(error).replace(f"{constructor.__name__}.__init__() ", ""),
                fix="correct `params`; the parameters are those of its constructor",
            ) from error
        except BadInput as error:
            raise ConfigError(f"{where}: {error.what}", why=error.why, fix=error.fix) from error
        path = folder / step.detector.artifact
        shared = next((job.step for job in found if job.path == path), None)
        if shared is not None:
            raise ConfigError(
                f"{where}: artifact {step.detector.artifact!r} is also that of step {shared!r}",
                why="the second fit would replace the first",
                fix="give each detector a folder of its own",
            )
        found.append(Job(pipeline.name, step.name, detector, path))
    return found


def fit(work: Sequence[Job], reference: Frame, *, lineage: Mapping[str, Any] | None = None) -> Iterator[Report]:
    """Fit, store and read back one detector after the other, yielding each when it is done.

    Args:
        lineage: where the reference comes from, for the manifests (`detectors.lineage`); None: they say nothing.

    Raises:
        BadInput: the reference does not serve (`require_usable` finds what can be known before fitting).
        ArtifactError: an artifact cannot be written.
    """
    require_usable(work, reference)
    for job in work:
        began = time.perf_counter()
        detector = job.detector.fit(reference)
        replaced = before(job.path)
        artifacts.save(detector, job.path)
        if lineage is not None:
            record(job.path, replaced, lineage)
        seconds = time.perf_counter() - began
        stored = artifacts.load(job.path)
        threshold = stated_threshold(stored, reference)
        yield Report(
            job.pipeline,
            job.step,
            stored.kind,
            stored.method,
            len(reference),
            threshold,
            stored.digest,
            seconds,
            job.path,
        )


def stated_threshold(detector: Detector, reference: Frame) -> float:
    """As a detector states it when it scores the beginning of its reference: on the p-value for drift, else on a score.

    One that looks at every row has none at its first rows. Then it is the threshold on its statistic at later ones, of
    alibi-detect's at the row of this beginning at which it alarms, or the last.
    """
    if isinstance(detector, OnlineDrift):
        return float(detector.thresholds[-1])
    threshold = detector.score(reference.take(slice(0, max(detector.min_instances, 1)))).threshold
    if np.isfinite(threshold):
        return threshold
    return detector.score(reference.take(slice(0, _BEGINNING))).threshold


def require_usable(work: Sequence[Job], reference: Frame) -> None:
    """Check that every feature can teach a detector something, and that the outputs to learn from are there.

    Raises:
        BadInput: a numeric or categorical feature has no values, or the same value in every row; an output that a
            detector needs is absent.
    """
    for feature, column in zip(reference.schema.features, reference.columns, strict=True):
        if feature.kind not in ("numeric", "categorical"):
            continue
        present = column[column != MISSING] if feature.kind == "categorical" else column[~np.isnan(column)]
        fix = f"leave {feature.name} out (--exclude, or delete it from the schema), or give another reference"
        if len(present) == 0:
            raise BadInput(
                f"reference: feature {feature.name!r} has no values", why=f"all {len(column)} are missing", fix=fix
            )
        if len(present) == len(column) and (present == present[0]).all():
            value = reference.row(0)[feature.name]
            raise BadInput(
                f"reference: feature {feature.name!r} is constant",
                why=f"it is {value!r} in all {len(column)} rows, so nothing can be learned of how it varies",
                fix=fix,
            )
    for job in work:
        for name in job.detector.needs_outputs:
            if name not in reference.outputs:
                raise BadInput(
                    f"step {job.step!r} learns from the model's output {name!r}, which the reference lacks",
                    why=f"outputs given are {', '.join(reference.outputs) or 'none'}",
                    fix=f"name the column that holds it: --output {name}=COLUMN",
                )


def draft_or_kept(
    table: Table,
    path: Path,
    model: str,
    *,
    exclude: Sequence[str] = (),
    protected: Sequence[str] = (),
    pii: Sequence[str] = (),
    outputs: Mapping[str, str] | None = None,
) -> tuple[FeatureSchema, bool]:
    """The schema at `path`, which a person may have edited, or one inferred from the table; and whether it was kept.

    Args:
        outputs: output tensor -> column; these columns are no features.

    Raises:
        BadInput: the kept schema is of another model, or says otherwise than what is asked for here.
    """
    kept = kept_schema(path, model, exclude=exclude, protected=protected, pii=pii)
    if kept is not None:
        return kept, True
    left_out = (*exclude, *(outputs or {}).values())
    return infer_schema(table, model, exclude=left_out, protected=protected, pii=pii), False


def kept_schema(
    path: Path,
    model: str,
    *,
    exclude: Sequence[str] = (),
    protected: Sequence[str] = (),
    pii: Sequence[str] = (),
) -> FeatureSchema | None:
    """The schema at `path`; None when there is none yet.

    Raises:
        BadInput: it is of another model, or says otherwise than what is asked for here.
    """
    if not path.exists():
        return None
    schema = FeatureSchema.load(path)
    if schema.model != model:
        raise BadInput(
            f"schema {path} is of model {schema.model!r}",
            why=f"detectors of {model!r} are to be fitted",
            fix="name that model, or another folder",
        )
    for option, names in (("exclude", exclude), ("protected", protected), ("pii", pii)):
        for name in names:
            known = schema[name] if name in schema.names else None
            agrees = known is None if option == "exclude" else known is not None and getattr(known, option)
            if not agrees:
                raise BadInput(
                    f"schema {path} says otherwise of {name!r} than --{option}",
                    why="a schema that is there is kept, because a person may have edited it",
                    fix="edit the schema, or remove the file to have it inferred again",
                )
    return schema
