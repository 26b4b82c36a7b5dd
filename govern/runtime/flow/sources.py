"""The pipelines of a file that are called, as models of a server's repository."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from govern.errors import NotFound
from govern.pipeline import load_pipelines
from govern.runtime.flow.build import flow_model
from govern.runtime.flow.model import FlowModel
from govern.runtime.serving.repository import Source


def flow_sources(path: Path, stack: AsyncExitStack) -> list[Source]:
    """One for each pipeline of a file that watches no captured stream.

    Args:
        stack: closes the models' connections; also those of a model that was read anew, which may still be asked.

    Raises:
        PipelineError: the file is wrong.
    """
    found = (one for one in load_pipelines(path) if one.spec.source is None)
    return [Source(one.name, partial(_read, path, one.name, stack)) for one in found]


def _read(path: Path, name: str, stack: AsyncExitStack) -> FlowModel:
    for pipeline in load_pipelines(path):
        if pipeline.name == name and pipeline.spec.source is None:
            model = flow_model(pipeline, path.parent)
            stack.push_async_callback(model.close)
            return model
    raise NotFound(f"pipeline {name!r}", why=f"{path} has it no more", fix="put it back, or start the server anew")
