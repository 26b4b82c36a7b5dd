"""What a rule does to the values that it finds, and what it says of that afterwards."""

from __future__ import annotations

from typing import Final

from govern.errors import GovernError
from govern.mirror.redaction.config import Action, RedactionRule, Side
from govern.mirror.redaction.keys import Keys
from govern.mirror.redaction.path import Path, parse_path

#: Actions that put text in a value's place.
_TEXTS: Final = frozenset({"hash", "tokenise"})


class Withhold(Exception):
    """The body cannot be redacted, or a rule says that it must not travel. The reason names no value."""


class AskedFor(Withhold):
    """A rule of the action `withhold` found what it names."""


class Place:
    """A rule, ready to be applied.

    Attributes:
        label: what a record says was redacted.
        path: steps into a JSON document, or empty.
        tensor: a tensor's name, or "".
        column: a column's name or position, or None.
    """

    __slots__ = ("action", "column", "label", "path", "sides", "tensor")

    def __init__(self, rule: RedactionRule, *, column: str | int | None = None) -> None:
        self.action: Action = rule.action
        self.sides: tuple[Side, ...] = rule.sides
        self.path: Path = parse_path(rule.path) if rule.path is not None else ()
        self.tensor = rule.tensor or ""
        self.column = rule.column if column is None else column
        parts = [
            rule.path or "",
            f"tensor({self.tensor})" if self.tensor else "",
            f"column({self.column})" if self.column is not None else "",
        ]
        self.label = ".".join(part for part in parts if part)

    @property
    def whole_body(self) -> bool:
        return not self.path and not self.tensor and self.column is None


class Change:
    """One rule at work in one body: call it with a value for what takes its place. A missing value stays missing.

    Attributes:
        count: values met so far.
        taken: those that are to be sealed, in order.
        done: what was done, in order; besides `action` it may be "drop", where text finds no place.
    """

    __slots__ = ("_keys", "action", "count", "done", "taken")

    def __init__(self, action: Action, keys: Keys | None) -> None:
        self.action = action
        self._keys = keys
        self.count = 0
        self.taken: list[object] = []
        self.done: dict[Action, None] = {}

    @property
    def makes_text(self) -> bool:
        return self.action in _TEXTS

    def __call__(self, value: object) -> object:
        self.count += 1
        self.done[self.action] = None
        match self.action:
            case "withhold":
                raise AskedFor("a rule withholds bodies with this field")
            case "encrypt":
                self.taken.append(value)
                return None
            case "hash" if value is not None:
                return self._known_keys().hash(value)
            case "tokenise" if value is not None:
                return self._known_keys().token(value)
            case _:
                return None

    def drop(self, value: object) -> object:
        """In place of a call, where no text can stand: the value becomes missing, and the record says so."""
        if not self.makes_text:
            return self(value)
        self.count += 1
        self.done["drop"] = None
        return None

    def _known_keys(self) -> Keys:
        if self._keys is None:
            raise GovernError("redaction", why="a rule needs a key, and there is none", fix="set redaction.key_file")
        return self._keys
