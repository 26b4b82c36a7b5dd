"""`govern pipeline show`: the graph of a pipeline, in the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from govern.cli._files import write_whole
from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.cut import cut
from govern.pipeline.graph import Graph, Node, graph
from govern.pipeline.groups import is_placed
from govern.pipeline.said import placement, reads, waits, what
from govern.pipeline.svg import svg

_STYLES: Final = {
    "detector": "magenta",
    "explainer": "green",
    "model": "blue",
    "transformer": "cyan",
    "router": "yellow",
    "combiner": "yellow",
    "input": "dim",
    "output": "dim",
}


def show(
    file: Annotated[Path, typer.Argument(help="Pipeline file (YAML).")],
    picture: Annotated[Path | None, typer.Option("--svg", help="Write an SVG instead of drawing here.")] = None,
) -> None:
    """Draw the graphs of a file: what each step is, what it reads and joins, and what triggers it."""
    console = Console(highlight=False)
    pipelines = load_pipelines(file, schema=False)
    graphs = [graph(pipeline) for pipeline in pipelines]
    if picture is not None:
        write_whole(picture, [svg(graphs).encode()])
        console.print(f"{escape(str(picture))}: {', '.join(one.name for one in graphs)}", soft_wrap=True)
        return
    for pipeline, one in zip(pipelines, graphs, strict=True):
        console.print(draw(pipeline, one))
        for part in cut(pipeline) if is_placed(pipeline) else ():
            console.print(f"[dim]part {escape(placement(part))}[/]")


def draw(pipeline: Pipeline, one: Graph) -> Tree:
    """The graph as a tree: a step hangs below the first that triggers it, else below the first that it reads."""
    source = pipeline.spec.source
    given = f"the inferences of {source.service}/{source.model}" if source is not None else "what it is called with"
    root = Tree(f"[bold]{one.name}[/].inputs  [dim]{escape(given)}[/]")
    parents: dict[str, str] = {}
    for node in one.nodes:
        writers = (one.writer(port.topic) for port in (*node.triggers, *node.inputs))
        parents[node.name] = next((up.name for up in writers if up is not None and not _below(up, node, parents)), "")
    branches = {node.name: Tree(_label(node, parents[node.name])) for node in one.nodes}
    for node in one.nodes:
        above = parents[node.name]
        (branches[above] if above else root).children.append(branches[node.name])
    return root


def _below(node: Node, other: Node, parents: dict[str, str]) -> bool:
    """Whether a node is the other one, or hangs somewhere below it: what it gives comes back over a cycle."""
    name = node.name
    while name and name != other.name:
        name = parents.get(name, "")
    return name == other.name


def _label(node: Node, parent: str) -> str:
    text = f"[bold {_STYLES[node.role]}]{escape(node.name.strip('<>'))}[/]  {escape(what(node))}"
    plain = len(node.inputs) == 1 and not node.triggers and not node.inputs[0].tensor and not node.inputs[0].names
    if not plain or node.inputs[0].topic.node != parent or (node.inputs[0].topic.side == "inputs" and parent):
        text += f"\n[dim]{escape(reads(node))}[/]"
    if node.triggers:
        text += f"\n[dim]{escape(waits(node))}[/]"
    return text
