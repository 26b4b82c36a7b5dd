"""What a step of a pipeline is called where it is a model."""

from __future__ import annotations

from collections.abc import Iterable

from govern.errors import ConfigError


def model_name(pipeline: str, step: str) -> str:
    """`<pipeline>-<step>`: two DNS labels (RFC 1123) joined by what may stand inside one.

    So it can be a segment of a path, the name of a Seldon `Model` and that of a KServe `InferenceService`.
    """
    return f"{pipeline}-{step}"


def check_distinct(names: Iterable[str]) -> None:
    """Refuse names of which two are equal: step `b-c` of `a` and step `c` of `a-b` both are `a-b-c`.

    Raises:
        ConfigError: as said.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(
                f"two models would be called {name!r}",
                why="a step is served as <pipeline>-<step>, and a pipeline under its own name",
                fix="rename a pipeline or a step, or serve them by two processes",
            )
        seen.add(name)
