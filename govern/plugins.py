"""Detectors and explainers by name, through entry points, and functions by theirs: the kernel imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from govern.errors import ConfigError, MissingExtra

DETECTORS: Final = "govern.detectors"
EXPLAINERS: Final = "govern.explainers"


def names(group: str) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in entry_points(group=group)))


def load(group: str, name: str) -> Any:
    """The class registered as `name`.

    Raises:
        ConfigError: no such name in the group.
        MissingExtra: its module needs an optional dependency that is absent.
    """
    entry = _entry(group, name)
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        root = (error.name or "").split(".")[0]
        extra = {"alibi": "alibi", "alibi_detect": "alibi", "shap": "explain"}.get(root)
        if extra is None:
            raise
        raise MissingExtra(extra, needed_by=f"{group}: {name}") from error


def function(name: str, *, where: str) -> Callable[..., Any]:
    """The function of a user's own that `package.module:function` names.

    Args:
        where: it is named, as the message calls it.

    Raises:
        ConfigError: there is no such module, or no such function in it.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except ImportError as error:
        fix = "install the package where govern runs, or correct the name"
        raise ConfigError(where, why=f"module {module!r} cannot be imported: {error}", fix=fix) from error
    except AttributeError as error:
        raise ConfigError(where, why=str(error), fix="correct the name behind the colon") from error
    if not callable(found):
        raise ConfigError(where, why=f"it is {type(found).__name__}, no function", fix="name a function")
    return cast(Callable[..., Any], found)


@cache
def _entry(group: str, name: str) -> EntryPoint:
    """What is registered, looked for once: it means to read what every installed package says of itself."""
    found: EntryPoint | None = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        raise ConfigError(
            f"{group}: {name!r} is not known",
            why=f"registered are {', '.join(names(group)) or 'none'}",
            fix="correct the name, or install the package that provides it",
        )
    return found
