"""A foreign manifest, read key by key: what was not read is known, and each value knows its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from govern.pipeline.document import Document
from govern.pipeline.errors import PipelineError, Problem, Where, suggest


@dataclass(slots=True)
class Report:
    """What an import could not do.

    Attributes:
        losses: fields that have no place in a pipeline of govern.
        errors: why a manifest, or a file, could not be read at all.
    """

    losses: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that one of the two ways to import has no place for; `note` reports it where that way is taken."""

    part: Part
    key: str | int | None
    what: str
    why: str
    fix: str

    def note(self) -> None:
        self.part.lose(self.key, self.what, self.why, self.fix)


class Part:
    """A mapping of a manifest. Reading a key takes it; `rest` reports those that nobody took."""

    def __init__(self, document: Document, where: Where, value: dict[str, object], report: Report) -> None:
        self.document = document
        self.where = where
        self._value = value
        self._report = report
        self._taken: set[str] = set()

    def has(self, key: str) -> bool:
        """An empty list or mapping, and null, are what leaving the key out is."""
        return self._value.get(key) not in (None, (), {}, "")

    def text(self, key: str, default: str = "") -> str:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, f"it is {value!r}", "text is needed here", "put it in quotes")
        return value

    def name(self, key: str = "name") -> str:
        """Text that must be there."""
        found = self.text(key)
        if not found:
            raise self.error(key, "it is missing", f"`{key}` has no default", f"add `{key}:`")
        return found

    def number(self, key: str) -> int | None:
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"it is {value!r}", "a whole number is needed here", "correct the value")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, f"it is {value!r}", "true or false is needed here", "correct the value")
        return bool(value)

    def texts(self, key: str) -> tuple[str, ...]:
        found: list[str] = []
        for item in self._list(key):
            if not isinstance(item, str):
                raise self.error(key, f"it holds {item!r}", "a list of texts is needed here", "correct the value")
            found.append(item)
        return tuple(found)

    def texts_by_name(self, key: str) -> dict[str, str]:
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, f"it is {value!r}", "a mapping is needed here", "write key: value lines")
        for name, text in (value or {}).items():
            if not isinstance(text, str):
                raise self.error(f"{key}", f"it holds {name}: {text!r}", "text is needed here", "put it in quotes")
        return dict(value or {})

    def one_of(self, key: str, known: Sequence[str]) -> str:
        """One of a few words; "" when the key is not there."""
        found = self.text(key)
        if found and found not in known:
            raise self.error(key, f"it is {found!r}", "there is no such value", f"write one of {', '.join(known)}")
        return found

    def part(self, key: str) -> Part | None:
        value = self._take(key)
        return None if value is None else self._part((*self.where, key), value)

    def parts(self, key: str) -> tuple[Part, ...]:
        return tuple(self._part((*self.where, key, at), item) for at, item in enumerate(self._list(key)))

    def named_parts(self, key: str) -> Iterator[tuple[str, Part]]:
        """The values of a mapping, each with its key."""
        holder = self.part(key)
        for name, value in holder._value.items() if holder is not None else ():
            yield name, self._part((*self.where, key, name), value)

    def lose(self, key: str | int | None, what: str, why: str, fix: str) -> None:
        """Note that a field (the whole mapping for None) has no place in a pipeline of govern."""
        self._report.losses.append(self._problem(key, what, why, fix))

    def error(self, key: str | int | None, what: str, why: str, fix: str) -> PipelineError:
        return PipelineError(self.document.file, [self._problem(key, what, why, fix)])

    def unmapped(self, key: str, why: str, fix: str) -> None:
        """Take a key that means something here and that govern cannot say; nothing happens when it is not there."""
        if self.has(key):
            self.lose(key, f"`{key}` is not imported", why, fix)
        self._taken.add(key)

    def unsaid(self, key: str, why: str, fix: str) -> Iterator[Loss]:
        """As `unmapped`, for a key that only one of the ways to import cannot say."""
        if self.has(key):
            yield Loss(self, key, f"`{key}` is not imported", why, fix)
        self._taken.add(key)

    def rest(self, what: str, platform: Collection[str] = ()) -> None:
        """Report the keys that nobody took.

        Args:
            what: what the mapping is called.
            platform: keys that say how the platform runs it, and nothing of what is served.
        """
        known = [*self._taken, *platform]
        for key in self._value:
            if key not in known and self.has(key):
                why = f"no field of {what} that govern knows"
                self.lose(key, f"unknown key {key!r}", why, suggest(key, known, "see docs/pipeline-import.md"))

    def _take(self, key: str) -> object:
        self._taken.add(key)
        return self._value.get(key)

    def _list(self, key: str) -> tuple[object, ...]:
        value = self._take(key)
        if value is not None and not isinstance(value, tuple):
            raise self.error(key, f"it is {value!r}", "a list is needed here", "write `- item` lines")
        return value or ()

    def _part(self, where: Where, value: object) -> Part:
        if not isinstance(value, dict):
            problem = self.document.problem(
                where, f"it is {value!r}", "a mapping is needed here", "write key: value lines"
            )
            raise PipelineError(self.document.file, [problem])
        return Part(self.document, where, value, self._report)

    def _problem(self, key: str | int | None, what: str, why: str, fix: str) -> Problem:
        where: Where = self.where
        if isinstance(key, str):
            # "inputs.0" names an item of a list.
            where = (*where, *(int(one) if one.isdigit() else one for one in key.split(".")))
        elif key is not None:
            where = (*where, key)
        at_key = isinstance(key, str) and where in self.document.keys
        return self.document.problem(where, what, why, fix, at_key=at_key)
