"""What is wrong with a pipeline file: every problem, each with its place and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from govern.errors import ConfigError

#: Keys and indices from the document's root: ("spec", "steps", 1, "inputs", 0).
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend.

    Attributes:
        line, column: counted from 1.
        field: such as `spec.steps[1].inputs[0]`; "" for the document as a whole.
    """

    file: Path
    line: int
    column: int
    field: str
    what: str
    why: str
    fix: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.place}: {where}{self.what}: {self.why} ({self.fix})"


class PipelineError(ConfigError):
    """A pipeline file that cannot be used. `problems` holds all that was found, in file order."""

    code = "bad-pipeline"

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        first = self.problems[0]
        if len(self.problems) == 1:
            where = f"{first.field}: " if first.field else ""
            super().__init__(f"{first.place}: {where}{first.what}", why=first.why, fix=first.fix)
            return
        super().__init__(
            f"{file}: {len(self.problems)} errors",
            why="\n".join(str(problem) for problem in self.problems),
            fix=f"mend them, then try `govern pipeline check {file}`",
        )


def field(where: Where) -> str:
    """The path as a person writes it."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(name: str, known: Sequence[str], otherwise: str) -> str:
    """A fix for a name that is not known: the closest one that is, else all of them."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{otherwise}: {', '.join(known)}" if known else otherwise
