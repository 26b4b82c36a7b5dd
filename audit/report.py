"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was signed.

    Attributes:
        where: what it is found in: "entry 17", "node 3 of level 2", "checkpoint 500", "line 4" ...
        what: how it differs.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `ok` only when everything was checked and nothing was found.

    Attributes:
        log: origin of the log, as the trusted key names it.
        size: leaves of the tree at the newest checkpoint that was checked; 0 when there was none.
        entries: entries whose place in the tree was checked.
        opened: entries whose withheld fields were checked against their commitments.
        findings: empty when all is well.
    """

    log: str
    size: int
    entries: int
    opened: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings
