"""What each kind of step must say of itself beyond the shape of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from govern.pipeline.document import Document, items, mapping
from govern.pipeline.errors import Problem, Where, suggest


class Sections:
    """The section of a step that says what it is; what is wrong with it is appended to `found`."""

    def __init__(self, document: Document, where: Where, found: list[Problem]) -> None:
        self._document = document
        self._where = where
        self._found = found

    def check(self, content: Mapping[str, object], n_inputs: int) -> None:
        """Check the section of the role that stands last in `where`, of a step with so many inputs."""
        match self._where[-1]:
            case "model":
                self._model(content)
                self._tensors(content)
            case "transformer":
                self._tensors(content)
            case "router":
                self._router(content)
            case "combiner":
                self._combiner(content, n_inputs)

    def _refuse(self, where: Where, what: str, why: str, fix: str, *, at_key: bool = False) -> None:
        self._found.append(self._document.problem((*self._where, *where), what, why, fix, at_key=at_key))

    def _model(self, content: Mapping[str, object]) -> None:
        given = [key for key in ("captured", "url") if content.get(key) is not None]
        if len(given) != 1:
            what = "it is captured and called" if given else "it is neither captured nor called"
            why = "a model is the monitored one, whose responses were captured, or one that is called at a URL"
            self._refuse((), what, why, "keep one of `captured: true` and `url: http://host:port`")
        elif given == ["captured"]:
            for key in ("name", "version", "timeoutMs"):
                self._belongs(content, key, "a captured model is not called", "remove it, or write `url:`")

    def _tensors(self, content: Mapping[str, object]) -> None:
        outputs = [str(mapping(one).get("name")) for one in items(content.get("outputs"))]
        for position, name in enumerate(items(content.get("oneOf"))):
            if name not in outputs:
                why = "`oneOf` names the outputs of which each call returns exactly one"
                fix = suggest(str(name), outputs, "the outputs are") if outputs else "declare it in `outputs`"
                self._refuse(("oneOf", position), f"output {name!r} is not declared", why, fix)
        for side in ("inputs", "outputs"):
            self._once((side,), items(content.get(side)), "tensor")

    def _router(self, content: Mapping[str, object]) -> None:
        routes = items(content.get("routes"))
        strategy = content.get("strategy")
        self._once(("routes",), routes, "route")
        if strategy == "weighted" and routes and all(mapping(one).get("weight") == 0 for one in routes):
            why = "all weights are 0, so no request can be sent anywhere"
            self._refuse(("routes",), "no route is open", why, "give one of them a weight")
        if strategy in ("epsilon-greedy", "thompson"):
            for position, route in enumerate(routes):
                if "weight" in mapping(route):
                    why = "only strategy weighted draws by weights; the others learn"
                    self._refuse(
                        ("routes", position, "weight"), "`weight` has no effect", why, "remove it", at_key=True
                    )
        if strategy in ("weighted", "thompson"):
            self._belongs(content, "epsilon", "only strategy epsilon-greedy has one", "remove it")

    def _combiner(self, content: Mapping[str, object], n_inputs: int) -> None:
        weights = items(content.get("weights"))
        if content.get("method") in ("mean", "vote"):
            fix = "write method: weighted, or remove `weights`"
            self._belongs(content, "weights", "only method weighted has them", fix)
        elif content.get("method") == "weighted" and len(weights) != n_inputs:
            why = f"the step has {n_inputs} input{'s' if n_inputs > 1 else ''}"
            self._refuse(("weights",), f"{len(weights)} weights", why, "write weights: one number for each input")
        elif weights and all(one == 0 for one in weights):
            self._refuse(("weights",), "all weights are 0", "their mean is undefined", "raise one of them")

    def _belongs(self, content: Mapping[str, object], key: str, why: str, fix: str) -> None:
        if key in content:
            self._refuse((key,), f"`{key}` has no effect", why, fix, at_key=True)

    def _once(self, where: Where, named: Sequence[object], word: str) -> None:
        names = [mapping(one).get("name") for one in named]
        for position, name in enumerate(names):
            if name in names[:position]:
                why = f"a {word} before it has the same name"
                self._refuse((*where, position, "name"), f"{word} {name!r} comes twice", why, "rename one of them")
