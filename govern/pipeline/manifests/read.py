"""Files of manifests, in any order and mixture, to serving graphs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from govern.errors import ConfigError
from govern.pipeline.document import Document, read
from govern.pipeline.errors import PipelineError, Problem, Where
from govern.pipeline.manifests import kserve, seldon_v1, seldon_v2
from govern.pipeline.manifests.graph import Graph
from govern.pipeline.manifests.manifest import Part, Report

_SELDON_V2: Final = "mlops.seldon.io"
_SELDON_V1: Final = "machinelearning.seldon.io"
_KSERVE: Final = "serving.kserve.io"
#: (API group, kind) that are read.
KINDS: Final = (
    (_SELDON_V2, "Model"),
    (_SELDON_V2, "Pipeline"),
    (_SELDON_V2, "Experiment"),
    (_SELDON_V1, "SeldonDeployment"),
    (_KSERVE, "InferenceService"),
    (_KSERVE, "InferenceGraph"),
)
_VERSIONS: Final = frozenset({"v1alpha1", "v1alpha2", "v1alpha3", "v1beta1", "v1"})
#: What a chart writes between braces. Prompts of language models have braces of their own.
_HELM: Final = re.compile(
    r"\{\{-?\s*(?:\.(?:Values|Release|Chart|Capabilities|Files)\b|(?:include|if|end|range|with)\b)"
)


def read_manifests(files: Sequence[Path]) -> tuple[list[Graph], Report]:
    """The serving graphs of all files together, and what cannot be imported of them."""
    report = Report()
    roots: list[tuple[str, Part]] = []
    for file in files:
        try:
            _no_chart(file)
            for document in read(file, aliases=True):
                roots += _roots(document, report)
        except PipelineError as error:
            report.errors += error.problems
        except ConfigError as error:
            report.errors.append(Problem(file, 1, 1, "", error.what, error.why, error.fix))
    graphs: list[Graph] = []
    models: dict[str, seldon_v2.Model] = {}
    # Models come first: a pipeline's steps are named after them, and may stand in any file.
    for kind, root in sorted(roots, key=lambda one: one[0] != "Model"):
        try:
            graphs += _read(kind, root, models)
        except PipelineError as error:
            report.errors += error.problems
    return [*graphs, *seldon_v2.standalone(models, graphs)], report


def _no_chart(file: Path) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return  # said, with its reason, by who reads the file next
    for number, line in enumerate(lines, 1):
        found = _HELM.search(line)
        if found and not line.lstrip().startswith("#"):
            why = "the file is a template of a Helm chart, no manifest"
            fix = "render it, and import what comes out: helm template CHART > manifests.yaml"
            raise PipelineError(file, [Problem(file, number, found.start() + 1, "", "a template", why, fix)])


def _roots(document: Document, report: Report) -> list[tuple[str, Part]]:
    """The manifests of a document: itself, or the items of a list."""
    found: list[tuple[str, Part]] = []

    def visit(value: object, where: Where) -> None:
        if not isinstance(value, dict):
            what = "no manifest"
            report.errors.append(document.problem(where, what, "it is no mapping", "begin with apiVersion and kind"))
            return
        kind, version = str(value.get("kind")), str(value.get("apiVersion"))
        items = value.get("items")
        if kind.endswith("List") and isinstance(items, tuple):
            for at, item in enumerate(items):
                visit(item, (*where, "items", at))
            return
        group, _, number = version.rpartition("/")
        if (group, kind) in KINDS and number in _VERSIONS:
            found.append((kind, Part(document, where, value, report)))
            return
        key = "kind" if any(group == one for one, _ in KINDS) and number in _VERSIONS else "apiVersion"
        why = f"apiVersion and kind are {version} and {kind}"
        fix = f"leave it out; what is imported: {', '.join(f'{kind} of {group}' for group, kind in KINDS)}"
        report.losses.append(document.problem((*where, key), "the manifest is not imported", why, fix))

    visit(document.value, ())
    return found


def _read(kind: str, root: Part, models: dict[str, seldon_v2.Model]) -> list[Graph]:
    metadata = root.part("metadata")
    if metadata is None:
        raise root.error("metadata", f"{kind} has no name", "metadata is missing", "add `metadata: {name: …}`")
    name, namespace = metadata.name(), metadata.text("namespace", "default")
    root.rest(f"a {kind}", {"apiVersion", "kind", "status", "metadata", "spec"})
    match kind:
        case "Model":
            if name in models:
                raise metadata.error("name", f"Model {name!r} comes twice", "names are unique", "remove one of them")
            models[name] = seldon_v2.read_model(root, name, namespace)
        case "Experiment":
            seldon_v2.read_experiment(root, name)
        case "Pipeline":
            return [seldon_v2.read_pipeline(root, name, namespace, models)]
        case "SeldonDeployment":
            return [seldon_v1.read_deployment(root, name, namespace)]
        case "InferenceService":
            return [kserve.read_service(root, name, namespace)]
        case "InferenceGraph":
            return [kserve.read_graph(root, name, namespace)]
    return []
