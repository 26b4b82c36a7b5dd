"""What every path of the API goes through: who asks, the record that they asked, and then the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request

from audit import auth
from audit.access import AccessRecorder
from audit.auth import Caller, TokenKey
from audit.query import AuditQuery, View
from audit.seal import KeyEncryptionKey
from audit.store import AuditStore
from govern.telemetry.metrics import Metrics, labels

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the API runs.

    Attributes:
        token_key: what callers' tokens are checked with; None = no authentication, loopback clients only.
        encryption: opens withheld fields for case files and exports; None = they stay undisclosed.
    """

    token_key: TokenKey | None
    encryption: KeyEncryptionKey | None = None


class Desk:
    """What the paths share: the log, who asks, and the record of it."""

    def __init__(
        self,
        query: AuditQuery,
        recorder: AccessRecorder,
        settings: Settings,
        store: AuditStore | None,
        metrics: Metrics,
    ) -> None:
        self.query = query
        self.recorder = recorder
        self.settings = settings
        self.store = store
        self.metrics = metrics

    async def admit(self, caller: Caller, action: str, subject: str, purpose: str) -> None:
        """Record a read; only then may it be answered."""
        await self.recorder.record(
            actor=caller.actor, role=caller.role, action=action, subject=subject, purpose=purpose
        )
        self.metrics.audit_reads.labels(*labels(namespace=self.query.namespace)).inc()

    async def look(self, read: Callable[[View], T]) -> T:
        """Read from one snapshot, on a thread."""

        def reading() -> T:
            with self.query.snapshot() as view:
                return read(view)

        return await asyncio.to_thread(reading)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _caller(
    request: Request,
    desk: Annotated[Desk, Depends(_desk)],
    authorization: Annotated[str | None, Header(description="Bearer <JSON Web Token>")] = None,
) -> Caller:
    if desk.settings.token_key is None:
        return auth.anonymous(request.client.host if request.client else None)
    return auth.caller_of(authorization, desk.settings.token_key)


TheDesk = Annotated[Desk, Depends(_desk)]
TheCaller = Annotated[Caller, Depends(_caller)]
Purpose = Annotated[
    str, Header(alias="govern-purpose", max_length=500, description="Why you look; recorded with the access.")
]
