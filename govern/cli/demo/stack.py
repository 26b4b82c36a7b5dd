"""The processes of the demo: the same commands that run in production, on free ports of this machine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import httpx

from govern.cli.demo.child import Child, Program
from govern.cli.demo.commands import environment, govern, module, run
from govern.cli.demo.model import MODEL, REVISION, SERVICE
from govern.cli.demo.ports import free_ports
from govern.cli.demo.work import Work
from govern.errors import GovernError

#: Where the audit API and `govern audit token` look for the shared secret.
TOKEN_KEY: Final = "GOVERN_AUDIT_TOKEN_KEY"  # noqa: S105 - the name of a variable
_PROBE_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the processes listen; each is http://127.0.0.1:port."""

    model: str
    proxy: str
    explainer: str
    audit: str
    shipper_metrics: str
    worker_metrics: str
    explainer_metrics: str
    writer_metrics: str
    audit_metrics: str

    @classmethod
    def free(cls) -> Addresses:
        return cls(*(f"http://127.0.0.1:{port}" for port in free_ports(len(cls.__slots__))))


def port_of(url: str) -> str:
    return url.rsplit(":", 1)[1]


class Stack:
    """All processes, kept running. Made by `running`.

    Attributes:
        bus_url, database_url: which bus and which audit database they use.
        token_key: shared secret of the audit API, of this run alone.
    """

    def __init__(self, work: Work, *, namespace: str, bus_url: str, database_url: str) -> None:
        self.work = work
        self.namespace = namespace
        self.bus_url = bus_url
        self.database_url = database_url
        self.at = Addresses.free()
        self.token_key = secrets.token_hex(32)
        self._client = httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S)
        self._children = {one.name: Child(one, work.logs / f"{one.name}.log") for one in self._programs()}

    @property
    def processes(self) -> dict[str, int]:
        """Name -> process id, of those that run now."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    @property
    def restarts(self) -> dict[str, int]:
        return {name: child.restarts for name, child in self._children.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._children)

    def is_ready(self, name: str) -> bool:
        """Whether this process runs and has answered since it was last started."""
        return self._children[name].ready.is_set()

    async def ready(self) -> None:
        """Wait until every process answers."""
        for child in self._children.values():
            await child.ready.wait()

    @classmethod
    @asynccontextmanager
    async def running(cls, work: Work, *, namespace: str, bus_url: str, database_url: str) -> AsyncIterator[Stack]:
        """Start everything, wait until it answers, and stop it in order at the end.

        Raises:
            ChildFailed: a process does not come up, now or later.
        """
        work.logs.mkdir(exist_ok=True)
        stack = cls(work, namespace=namespace, bus_url=bus_url, database_url=database_url)
        # The log is founded once, before those who write and read it start side by side.
        await run(["audit", "init", "--db", database_url, "--namespace", namespace, "--keys", str(work.keys)])
        try:
            async with stack._client, asyncio.TaskGroup() as tasks:
                for child in stack._children.values():
                    tasks.create_task(child.keep())
                try:
                    await stack.ready()
                    yield stack
                finally:
                    await stack._stop()
        except BaseExceptionGroup as group:
            raise _cause(group) from None

    async def _stop(self) -> None:
        """One after the other, the traffic's side first, so that each can pass on what it holds."""
        for child in self._children.values():
            await child.stop()

    def _programs(self) -> Iterator[Program]:
        """In the order in which they are stopped."""
        at, work = self.at, self.work
        bus = ("--bus", self.bus_url, "--namespace", self.namespace)
        log = ("--db", self.database_url, "--keys", str(work.keys))
        yield self._program(
            "proxy",
            govern(
                *("mirror", "proxy", "--listen", at.proxy.removeprefix("http://"), "--upstream", at.model),
                *("--namespace", self.namespace, "--service", SERVICE, "--model", MODEL, "--revision", REVISION),
                *("--pod", "demo", "--spool-dir", str(work.spool)),
            ),
            self._answers(f"{at.proxy}/v2/health/ready"),
        )
        yield self._program(
            "shipper",
            govern(
                *("mirror", "ship", *bus, "--service", SERVICE, "--pod", "demo", "--spool-dir", str(work.spool)),
                *("--metrics-listen", at.shipper_metrics.removeprefix("http://")),
            ),
            self._answers(f"{at.shipper_metrics}/metrics"),
        )
        yield self._program(
            "worker",
            govern("worker", str(work.pipeline), *bus, "--metrics-port", port_of(at.worker_metrics)),
            self._answers(f"{at.worker_metrics}/metrics"),
        )
        yield self._program(
            "explainer",
            govern(
                *("explain", "serve", str(work.explainers), *bus, "--port", port_of(at.explainer)),
                # Through the proxy, so that what explainers ask is seen, too; it is marked, and never judged.
                *("--model-url", at.proxy, "--metrics-port", port_of(at.explainer_metrics)),
                *("--audit-db", self.database_url, "--audit-keys", str(work.keys)),
            ),
            self._answers(f"{at.explainer}/healthz"),
        )
        yield self._program(
            "audit-api",
            govern(
                *("audit", "serve", *bus, *log, "--port", port_of(at.audit)),
                *("--metrics-port", port_of(at.audit_metrics)),
            ),
            self._answers(f"{at.audit}/healthz"),
            {TOKEN_KEY: self.token_key},
        )
        yield self._program(
            "audit-writer",
            govern("audit", "write", *bus, *log, "--metrics-port", port_of(at.writer_metrics)),
            self._answers(f"{at.writer_metrics}/metrics"),
        )
        yield self._program(
            "model",
            module("govern.cli.demo.serve", str(work.model), str(work.schema), port_of(at.model)),
            self._answers(f"{at.model}/v2/health/ready"),
        )

    def _program(
        self,
        name: str,
        command: tuple[str, ...],
        ready: Callable[[], Awaitable[bool]],
        added: Mapping[str, str] = MappingProxyType({}),
    ) -> Program:
        return Program(name, command, ready, environment(added))

    def _answers(self, url: str) -> Callable[[], Awaitable[bool]]:
        async def ready() -> bool:
            try:
                return (await self._client.get(url)).is_success
            except httpx.HTTPError:
                return False

        return ready


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person must act on: the first error of ours, else the first of all."""
    flat = list(_flat(group))
    return next((one for one in flat if isinstance(one, GovernError)), flat[0])


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _flat(one)
    else:
        yield error
