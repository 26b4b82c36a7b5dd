"""What a pipeline file has for a server's repository: the steps of what watches, and whole what is called."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from govern.errors import NotFound
from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.load import load_documents
from govern.runtime.flow.build import flow_model
from govern.runtime.flow.model import FlowModel
from govern.runtime.loader import Check, LoadedPipeline, load_watching
from govern.runtime.serving.repository import First, Source, detector_sources


def sources(
    path: Path, stack: AsyncExitStack, *, check: Check | None = None
) -> tuple[list[LoadedPipeline], list[Source]]:
    """The pipelines of a file that watch captured streams, and a source for each of their detector steps and for each
    pipeline that watches none: all of one reading of the file.

    Args:
        stack: closes the models' connections; also those of a model that was read anew, which may still be asked.
        check: of each artifact, before it is read, now or later.

    Raises:
        GovernError: the file is wrong, or an artifact that it names; as of `load` and `flow_model`.
    """
    documents = load_documents(path)
    watching = load_watching(path, documents, check=check)
    called = [
        Source(one.name, First(_model(one, path, stack, check), partial(_again, path, one.name, stack, check)))
        for _, one in documents
        if one.spec.source is None
    ]
    return watching, [*detector_sources(path, watching, check=check), *called]


def _model(pipeline: Pipeline, path: Path, stack: AsyncExitStack, check: Check | None) -> FlowModel:
    model = flow_model(pipeline, path.parent, check=check)
    stack.push_async_callback(model.close)
    return model


def _again(path: Path, name: str, stack: AsyncExitStack, check: Check | None) -> FlowModel:
    for pipeline in load_pipelines(path):
        if pipeline.name == name and pipeline.spec.source is None:
            return _model(pipeline, path, stack, check)
    raise NotFound(f"pipeline {name!r}", why=f"{path} has it no more", fix="put it back, or start the server anew")
