"""References between steps (`<step>.outputs.<tensor>`) and the tensors that steps emit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from govern import plugins
from govern.errors import ConfigError
from govern.record import Kind

Side = Literal["inputs", "outputs"]

#: Emitted for every window.
EMITTED: Final[dict[Kind, tuple[str, ...]]] = {
    "drift": ("is_drift",),
    "outlier": ("is_outlier", "instance_score"),
    "adversarial": ("is_adversarial", "instance_score"),
}
#: Emitted only for a window in which instances were flagged, and holding those: what a trigger waits for.
FLAGGED: Final[dict[Kind, str]] = {"outlier": "outliers", "adversarial": "adversarials"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A tensor, or all tensors of one side of a step.

    Attributes:
        node: a step's name or the pipeline's; "" for another pipeline's own inputs and outputs.
        tensor: "" for all.
        pipeline: the other pipeline, when it is read from there.
    """

    node: str
    side: Side
    tensor: str = ""
    pipeline: str = ""

    def same_side(self, other: Reference) -> bool:
        """Whether both are read from the same side of the same step."""
        return (self.pipeline, self.node, self.side) == (other.pipeline, other.node, other.side)

    def __str__(self) -> str:
        place = f"{self.pipeline}.step.{self.node}" if self.pipeline and self.node else self.pipeline or self.node
        return f"{place}.{self.side}" + f".{self.tensor}" * bool(self.tensor)


def parse(text: str) -> Reference | None:
    """Read `<node>[.inputs|.outputs[.<tensor>]]`; None when it has another form. `<node>` means its outputs."""
    node, _, rest = text.partition(".")
    side, _, tensor = rest.partition(".")
    if not node or text.endswith("."):
        return None
    match side:
        case "":
            return Reference(node, "outputs")
        case "inputs" | "outputs":
            return Reference(node, side, tensor)
    return None


def parse_external(text: str) -> Reference | None:
    """Read `<pipeline>[.inputs|.outputs[.<tensor>]]` or `<pipeline>.step.<step>[.inputs|.outputs[.<tensor>]]`."""
    pipeline, _, rest = text.partition(".")
    if rest.startswith("step."):
        inner = parse(rest.removeprefix("step."))
        return None if inner is None or not pipeline else replace(inner, pipeline=pipeline)
    outer = parse(text)
    return None if outer is None else replace(outer, node="", pipeline=pipeline)


def tensors(kind: Kind) -> tuple[str, ...]:
    """All that a detector of this kind can emit."""
    return EMITTED[kind] + ((FLAGGED[kind],) if kind in FLAGGED else ())


def detector_kind(type_: str) -> Kind:
    """The kind of the detectors registered as `type_`.

    Raises:
        ConfigError: there is none, or its class has no `kind`.
        MissingExtra: it needs an optional dependency that is absent.
    """
    kind: object = getattr(plugins.load(plugins.DETECTORS, type_), "kind", None)
    for known in get_args(Kind):
        if kind == known:
            found: Kind = known
            return found
    raise ConfigError(
        f"detector type {type_!r}",
        why=f"its class has kind {kind!r}",
        fix=f"set the class attribute `kind` to one of {', '.join(get_args(Kind))}",
    )
