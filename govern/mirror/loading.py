"""Reading a pydantic model from a YAML file, environment variables and flags, and saying where each value is from.

A field that is a model itself is a section: `sink:` with `join_s:` below it in the file, `GOVERN_MIRROR_SINK_JOIN_S`
in the environment, `sink.join_s` among the flags (`--sink-join-s`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from govern.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
#: Where a field is: its name, below the names of the sections that it is in.
FieldPath = tuple[str, ...]

_COLLECTIONS: Final = (tuple, list, set, frozenset, dict, Mapping)


class Loaded(NamedTuple, Generic[Model]):
    """A configuration, and of each value that was given the source, by the field's dotted name."""

    config: Model
    sources: dict[str, str]


def read(
    model: type[Model],
    path: Path | None,
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    prefix: str,
    shared: Mapping[str, str],
) -> Loaded[Model]:
    """Read the model's values; flags beat the environment, which beats the file.

    Args:
        flags: values by dotted name; None stands for a flag that was not given.
        prefix: what the names of the environment variables begin with.
        shared: the names without prefix under which some fields may stand in the environment, too.

    Raises:
        ConfigError: naming the source (file and line, variable or flag), the field and what to give instead.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        values, lines = _read_yaml(path)
        sources = {name: f"{path}:{line}: {name}" for name, line in lines.items()}
    known: set[str] = set()
    for place, field in _fields(model):
        name = ".".join(place)
        known.add(name)
        variables = [f"{prefix}{'_'.join(place).upper()}", *((shared[name],) if name in shared else ())]
        variable = next((each for each in variables if each in environ), None)
        if variable is not None:
            _put(values, place, _from_text(environ[variable], field))
            sources[name] = f"environment variable {variable}"
        if flags.get(name) is not None:
            _put(values, place, flags[name])
            sources[name] = f"--{name.replace('_', '-').replace('.', '-')}"
    assert flags.keys() <= known, f"no fields: {flags.keys() - known}"
    try:
        return Loaded(model.model_validate(values), sources)
    except ValidationError as error:
        raise _explain(model, error, sources) from error


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, if it is a section."""
    for option in _options(field):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(field: FieldInfo) -> tuple[Any, ...]:
    kind = field.annotation
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fields(model: type[BaseModel], above: FieldPath = ()) -> Iterator[tuple[FieldPath, FieldInfo]]:
    """Every field, a section before the fields in it."""
    for name, field in model.model_fields.items():
        yield (*above, name), field
        section = section_of(field)
        if section is not None:
            yield from _fields(section, (*above, name))


def _put(values: dict[str, Any], place: FieldPath, value: object) -> None:
    *sections, name = place
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        inner = values[section]
        if not isinstance(inner, dict):
            return  # what stands in the section's place is refused with its source
        values = inner
    values[name] = value


def _from_text(text: str, field: FieldInfo) -> object:
    """An environment variable's value: a section or a list of sections as YAML, a list of words also with commas."""
    collection = any(get_origin(option) in _COLLECTIONS for option in _options(field))
    if section_of(field) is None and not collection:
        return text
    if text.lstrip().startswith(("[", "{")):
        with contextlib.suppress(yaml.YAMLError):  # as text it is refused
            return yaml.safe_load(text)
    return [item.strip() for item in text.split(",")] if collection else text


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's values, and the line of each field and item."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if tree is None else dict(_lines(tree, ""))
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            f"configuration file {path}",
            why=f"it cannot be read: {error.strerror}",
            fix="name an existing file with --config",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration file {path}", why=f"it is no YAML: {error}", fix="mend the line that is named"
        ) from error
    except RecursionError as error:
        raise ConfigError(
            f"configuration file {path}",
            why="something in it contains itself, or is nested without end",
            fix="write out what the anchor (&name) stands for, instead of naming it (*name) within itself",
        ) from error
    if values is None:
        return {}, {}
    if not isinstance(values, dict) or not isinstance(tree, yaml.MappingNode):
        raise ConfigError(
            f"configuration file {path}",
            why=f"it holds a {type(values).__name__}, not fields",
            fix="write one `field: value` a line",
        )
    return values, lines


def _lines(node: yaml.Node, above: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        found = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        found = [(str(index), item, item) for index, item in enumerate(node.value)]
    else:
        return
    for name, at, value in found:
        yield above + name, at.start_mark.line + 1
        yield from _lines(value, f"{above}{name}.")


def _explain(model: type[BaseModel], error: ValidationError, sources: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    place = tuple(str(part) for part in first["loc"])
    owner, _ = _walk(model, place)
    head, colon, rest = message.partition(": ")
    if colon and owner is not None and head in owner.model_fields:
        # A rule about several fields: its message begins with the name of the one to change.
        place, message = (*place, head), rest
    named = [".".join(place[:length]) for length in range(len(place), 0, -1)]
    source = next((name for name in named if name in sources), "")
    what = sources[source] if source else named[0]
    if first["type"] == "extra_forbidden":
        owner, _ = _walk(model, place[:-1])
        fix = f"use one of: {', '.join(sorted(owner.model_fields))}" if owner is not None else ""
    else:
        _, fix = _walk(model, place)
    return ConfigError(
        what if source in ("", named[0]) else f"{what} ({named[0]})", why=message, fix=fix or "leave it out"
    )


def _walk(model: type[BaseModel], place: FieldPath) -> tuple[type[BaseModel] | None, str]:
    """The model that lies at a place, if one does, and the description of the last field on the way there."""
    current: type[BaseModel] | None = model
    description = ""
    for name in place:
        field = current.model_fields.get(name) if current is not None else None
        if field is not None:  # else it is an item's index, or the name of a union's branch
            description = field.description or ""
            current = section_of(field) or _model_of_items(field)
    return current, description


def _model_of_items(field: FieldInfo) -> type[BaseModel] | None:
    parts = (part for option in _options(field) for part in get_args(option))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
