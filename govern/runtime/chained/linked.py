"""Pipelines that run together, each linked to those that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from govern.errors import ConfigError
from govern.pipeline import Pipeline
from govern.pipeline.chain import Reading, chain, entry, published_steps, read_of, reading, ring
from govern.runtime.chained.given import View
from govern.runtime.chained.tasks import JoinedPipeline
from govern.runtime.loader import LoadedPipeline
from govern.schema import FeatureSchema


@dataclass(frozen=True, slots=True)
class Linked:
    """
    Attributes:
        pipelines: those that can run, each knowing where its requests are and which of its steps others read.
        joined: those of them whose requests are made of several records.
        refused: name -> why it cannot run.
    """

    pipelines: tuple[LoadedPipeline, ...]
    joined: tuple[JoinedPipeline, ...]
    refused: dict[str, ConfigError]


def link(pipelines: Sequence[LoadedPipeline]) -> Linked:
    """Link what can be linked: a pipeline that reads one which is not there, or cannot run, cannot run either."""
    loaded = {one.plan.name: one for one in pipelines}
    specs = {name: one.pipeline for name, one in loaded.items() if one.pipeline is not None}
    refused: dict[str, ConfigError] = {}
    while wrong := _wrong(specs):
        refused |= wrong
        specs = {name: one for name, one in specs.items() if name not in wrong}
    chains = {name: chain(one, specs) for name, one in specs.items() if one.spec.input is not None}
    read = published_steps(chains.values())
    running, joined = [], []
    for name, one in loaded.items():
        if name in refused:
            continue
        if name in chains:
            found = chains[name]
            schemas = tuple(_schema(each, loaded) for each in found.readings)
            view = None if found.joins or found.inputs[0].whole else View(found.inputs[0], schemas[0])
            one = replace(one, plan=replace(one.plan, source=found.source), view=view)
            if found.joins:
                joined.append(JoinedPipeline(found, schemas))
        running.append(replace(one, published=read.get(name, frozenset())))
    return Linked(tuple(running), tuple(joined), refused)


def _schema(one: Reading, loaded: dict[str, LoadedPipeline]) -> FeatureSchema:
    return loaded[one.read].schema


def _wrong(specs: dict[str, Pipeline]) -> dict[str, ConfigError]:
    """Those that cannot be linked to the others, each with the reason."""
    chained = {name: one for name, one in specs.items() if one.spec.input is not None}
    circle = ring(chained)
    if circle:
        why = f"{' -> '.join(circle)} is a ring"
        return {name: ConfigError(f"pipeline {name!r} cannot run", why=why, fix="open it") for name in circle}
    return {name: error for name, one in chained.items() if (error := _unlinked(one, specs)) is not None}


def _unlinked(pipeline: Pipeline, specs: dict[str, Pipeline]) -> ConfigError | None:
    what = f"pipeline {pipeline.name!r} cannot run"
    for name, text in read_of(pipeline).items():
        if name not in specs:
            fix = f"give the worker the file of {name}, too"
            return ConfigError(what, why=f"it reads {text}, and no pipeline {name!r} runs here", fix=fix)
    for port in entry(pipeline).ports:
        found = reading(port, specs)
        if not isinstance(found, Reading):
            return ConfigError(f"{what}: {found.what}", why=found.why, fix=found.fix)
    return None
