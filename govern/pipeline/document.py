"""A YAML document that remembers where each of its values stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NoReturn

import yaml

from govern.errors import ConfigError
from govern.pipeline.errors import PipelineError, Problem, Where
from govern.pipeline.errors import field as field_of

#: A few aliases of aliases make a file of a kilobyte to more values than memory holds; no manifest comes near this.
MAX_VALUES: Final = 200_000
_MERGE: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    Attributes:
        text: the document as it was written, with the comments before it.
        value: built of dict, tuple, str, int, float, bool, None (and dates, which no field takes).
        places: where each value begins, and each key of a mapping: (line, column) from 1.
    """

    file: Path
    text: str = field(repr=False)
    value: object
    places: Mapping[Where, tuple[int, int]] = field(repr=False)
    keys: Mapping[Where, tuple[int, int]] = field(repr=False)

    def problem(self, where: Where, what: str, why: str, fix: str, *, at_key: bool = False) -> Problem:
        """A problem at `where`, or at the nearest value around it that the file has."""
        found = self.keys.get(where) if at_key else self.places.get(where)
        near = where
        while found is None:
            near = near[:-1]
            found = self.places.get(near)
        return Problem(self.file, *found, field_of(where), what, why, fix)


def read(path: Path, *, aliases: bool = False) -> list[Document]:
    """The documents of a YAML file, empty ones left out.

    Args:
        aliases: aliases and merge keys are written out, as they must be in files that other people wrote; a value
            then has the place of its anchor.

    Raises:
        ConfigError: the file cannot be read or has no document.
        PipelineError: it is no YAML, a key comes twice in a mapping, or it uses an alias that is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"pipeline file {path} cannot be read", why=str(error), fix="name an existing YAML file"
        ) from error
    try:
        text = _as_yaml(text) if aliases else text
        texts = _texts(path, text, aliases)
        nodes = [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
        documents = [_document(path, one, node) for one, node in zip(texts, nodes, strict=True)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _fail(path, line, column, "no YAML", error.problem or str(error), "mend the syntax at this place")
    except yaml.YAMLError as error:
        _fail(path, 1, 1, "no YAML", str(error), "save the file as UTF-8 text")
    except RecursionError:
        _fail(path, 1, 1, "no pipeline", "it is nested too deeply", "write the pipeline as the documentation shows")
    documents = [document for document in documents if document.value is not None]
    if not documents:
        raise ConfigError(f"pipeline file {path}", why="it is empty", fix="write a document of kind Pipeline")
    return documents


def _as_yaml(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses; inside its strings a tab cannot stand."""
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")


def _texts(path: Path, text: str, aliases: bool) -> list[str]:
    """The text of each document."""
    starts: list[int] = []
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            assert event.start_mark is not None, "a parsed event knows where it begins"
            starts.append(event.start_mark.index if starts else 0)
        if isinstance(event, yaml.AliasEvent) and not aliases:
            mark = event.start_mark
            assert mark is not None, "a parsed event knows where it begins"
            why = "a value that stands in two places has no one position, and may hold itself"
            _fail(path, mark.line + 1, mark.column + 1, f"alias *{event.anchor}", why, "write the value out")
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]


def _document(path: Path, text: str, root: yaml.Node) -> Document:
    places: dict[Where, tuple[int, int]] = {}
    keys: dict[Where, tuple[int, int]] = {}
    loader = yaml.SafeLoader("")

    def build(node: yaml.Node, where: Where) -> object:
        if len(places) > MAX_VALUES:
            why = f"it has more than {MAX_VALUES:,} values once its aliases are written out"
            _fail(path, *_place(node), "no pipeline", why, "write a smaller file")
        places[where] = _place(node)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for key_node, value_node in _merged(node):
                key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
                here = (*where, key)
                if key in mapping:
                    _fail(path, *_place(key_node), f"{field_of(here)} comes twice", "a key has one value", "remove one")
                keys[here] = _place(key_node)
                mapping[key] = build(value_node, here)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return tuple(build(item, (*where, position)) for position, item in enumerate(node.value))
        try:
            value: object = loader.construct_object(node)
        except ValueError as error:  # such as the date 2026-02-31
            _fail(path, *_place(node), f"{field_of(where)} cannot be read", str(error), "put the text in quotes")
        return value

    return Document(file=path, text=text, value=build(root, ()), places=places, keys=keys)


def _merged(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping with those of its merge keys (`<<`) behind them; its own win."""
    own = [(key, value) for key, value in node.value if key.tag != _MERGE]
    names = {str(key.value) for key, _ in own}
    for key, value in node.value:
        if key.tag != _MERGE:
            continue
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            for pair in _merged(source) if isinstance(source, yaml.MappingNode) else []:
                if str(pair[0].value) not in names:
                    names.add(str(pair[0].value))
                    own.append(pair)
    return own


def _place(node: yaml.Node) -> tuple[int, int]:
    mark = node.start_mark
    assert mark is not None, "a composed node knows where it begins"
    return mark.line + 1, mark.column + 1


def _fail(path: Path, line: int, column: int, what: str, why: str, fix: str) -> NoReturn:
    raise PipelineError(path, [Problem(path, line, column, "", what, why, fix)])


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()
