"""The configuration in force as YAML that `--config` takes back: every field, and where its value is from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml
from pydantic import BaseModel

from govern.mirror.loading import Loaded, Model, section_of


def as_yaml(loaded: Loaded[Model]) -> str:
    """One field a line, its source behind it as a comment; fields of type SecretStr are masked."""
    lines = _fields(type(loaded.config), loaded.config.model_dump(mode="json"), loaded.sources, "")
    return "".join(f"{line}\n" for line in lines)


def _fields(
    model: type[BaseModel], values: Mapping[str, object], sources: Mapping[str, str], above: str
) -> Iterator[str]:
    indent = "  " * above.count(".")
    for name, field in model.model_fields.items():
        value, section, place = values[name], section_of(field), above + name
        source = sources.get(place, "default").removesuffix(f": {place}")
        if section is not None and isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _fields(section, value, sources, f"{place}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:  # {source}"
            yield from (f"{indent}- {_flow(item)}" for item in value)
        else:
            yield f"{indent}{name}: {_flow(value)}  # {source}"


def _flow(value: object) -> str:
    """A value on one line, whatever it holds."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.safe_dump(
        value, default_flow_style=True, default_style=style, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()
