"""The rules that a pipeline must keep beyond the shape of its document. Pure.

The checks read the document as it was written, not the models, so that a wrong field does not hide what else is
wrong. They know the whole vocabulary; what of it a worker runs is `govern.runtime.vocabulary`'s to say.
"""

from __future__ import annotations

from govern.pipeline.checks.steps import Kinds, nodes
from govern.pipeline.checks.wiring import Wiring
from govern.pipeline.document import Document, mapping
from govern.pipeline.errors import Problem

__all__ = ["Kinds", "check"]


def check(document: Document, kinds: Kinds) -> list[Problem]:
    """All problems of the graph in a document.

    Args:
        kinds: detector type -> kind; raises `GovernError` for a type that cannot be used.
    """
    found: list[Problem] = []
    pipeline = str(mapping(mapping(document.value).get("metadata")).get("name", ""))
    Wiring(document, pipeline, list(nodes(document, kinds, found)), found).check()
    return found
