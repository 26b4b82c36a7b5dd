"""Logs to test on, and a stream of records as the bus carries it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine

from audit import keys
from audit.database import Mode, open_engine
from audit.entry import Draft, draft
from audit.keys import Keys
from audit.query import AuditQuery
from audit.schema import migrate
from audit.store import AuditStore
from govern import record as records
from govern.bus.protocol import Message
from govern.bus.topics import topic
from govern.codecs.cloudevents import to_message

NAMESPACE = "demo"
ORIGIN = "govern.example/demo"
T0_NS = 1_700_000_000_123_456_789


class Stream:
    """Bus messages of every kind, with offsets that grow by topic."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def message(self, record: records.Record, stream: str) -> Message:
        out = to_message(record, source="/test")
        return self._place(stream, out.key, out.value, out.headers)

    def raw(self, stream: str, value: bytes) -> Message:
        return self._place(stream, b"", value, (("ce_type", b"io.govern.inference.v1"),))

    def _place(self, stream: str, key: bytes, value: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> Message:
        name = topic(NAMESPACE, stream)  # type: ignore[arg-type]
        offset = self._next.get(name, 0)
        self._next[name] = offset + 1
        return Message(topic=name, partition=0, offset=offset, timestamp_ms=5, key=key, value=value, headers=headers)

    def inference(self, n: int, *, principal: str = "", request_id: str = "") -> Message:
        body = json.dumps({"inputs": [{"name": "age", "data": [30 + n % 40]}]}).encode()
        return self.message(
            records.Inference(
                schema_version=1,
                id=f"inf-{n}",
                request_id=request_id or f"req-{n}",
                namespace=NAMESPACE,
                service="census",
                model="income",
                revision="1",
                endpoint="default",
                protocol="v2",
                t_request=T0_NS + n,
                t_response=T0_NS + n + 1_000_000,
                status_code=200,
                request=records.Payload(content_type="application/json", body=body, size=len(body), sha256="ab" * 32),
                response=records.Payload(body=b'{"outputs": [0.3125]}', size=19, sha256="cd" * 32),
                sampling=records.Sampling(rate=1.0, strategy="all"),
                principal_hash=principal,
                capture=records.Capture(agent="a1", seq=n),
            ),
            "inferences",
        )

    def verdict(self, first: int, last: int, *, kind: str = "outlier", alarm: bool = True) -> Message:
        return self.message(
            records.Verdict(
                schema_version=1,
                id=f"verdict-{kind}-{first}-{last}",
                namespace=NAMESPACE,
                service="census",
                model="income",
                revision="1",
                endpoint="default",
                pipeline="watch",
                step=kind,
                kind=kind,
                method="isolation_forest",
                alarm=alarm,
                statistic=float("nan"),
                p_value=float("inf"),
                memory_digest="5e" * 32,
                features=(records.FeatureResult(feature="age", statistic=0.5, p_value=1e-9, n=4, is_drift=True),),
                instances=tuple(
                    records.InstanceResult(
                        instance_id=f"inf-{n}/0", request_id=f"req-{n}", score=0.125 * n, flagged=n % 2 == 0
                    )
                    for n in range(first, last + 1)
                ),
                window=records.Window(
                    topic=topic(NAMESPACE, "inferences"),
                    partition=0,
                    first_offset=first,
                    last_offset=last,
                    n_instances=last - first + 1,
                    completeness=1.0,
                ),
                seed=2**63 + 1,
                t_verdict=T0_NS + last,
            ),
            "verdicts",
        )

    def explanation(self, n: int) -> Message:
        return self.message(
            records.Explanation(
                schema_version=1,
                id=f"explanation-{n}",
                namespace=NAMESPACE,
                service="census",
                model="income",
                instance_id=f"inf-{n}/0",
                request_id=f"req-{n}",
                method="shap_tree",
                prediction=0.3125,
                base_value=0.5,
                attributions=(records.Attribution(feature="age", value="31", contribution=-0.25),),
                reasons=(records.Reason(feature="age", text="the age of 31 lowered it", contribution=-0.25),),
                anchor=records.AnchorRule(predicates=("age <= 31",), precision=0.97),
                status="ok",
                t_created=T0_NS + n,
            ),
            "explanations",
        )

    def feedback(self, n: int) -> Message:
        return self.message(
            records.Feedback(
                schema_version=1,
                id=f"feedback-{n}",
                namespace=NAMESPACE,
                request_id=f"req-{n}",
                label="refused",
                t_feedback=T0_NS + n,
            ),
            "feedback",
        )

    def access(self, request_id: str, *, actor: str = "ada") -> Message:
        return self.message(
            records.Access(
                schema_version=1,
                id=f"access-{actor}-{request_id}",
                namespace=NAMESPACE,
                actor=actor,
                role="auditor",
                action="case",
                subject=request_id,
                t_access=T0_NS,
            ),
            "access",
        )

    def config(self) -> Message:
        return self.message(
            records.ConfigChange(
                schema_version=1,
                id="config-1",
                namespace=NAMESPACE,
                subject="pipeline/watch",
                action="loaded",
                digest="ee" * 32,
                actor="worker",
                t_change=T0_NS,
            ),
            "config",
        )

    def dead_letter(self, inner: Message) -> Message:
        return self.message(
            records.DeadLetter(
                schema_version=1,
                id=f"dead-{inner.offset}",
                namespace=NAMESPACE,
                source_topic=inner.topic,
                source_partition=inner.partition,
                source_offset=inner.offset,
                pipeline="watch",
                step="outlier",
                code="undecodable-payload",
                what="tensor 'age'",
                why="31x is no number",
                fix="send numbers",
                key=inner.key,
                value=inner.value or b"",
                headers=dict(inner.headers),
                t_failed=T0_NS,
            ),
            "dead-letter",
        )

    def everything(self) -> list[Message]:
        """At least one entry of each kind."""
        inferences = [self.inference(n, principal="principal-one" if n in (1, 2) else "") for n in range(6)]
        return [
            *inferences,
            self.verdict(0, 3),
            self.verdict(2, 5, kind="drift", alarm=False),
            self.explanation(1),
            self.feedback(1),
            self.access("req-1"),
            self.config(),
            self.dead_letter(inferences[1]),
            self.raw("inferences", b"\xff\x00 no protobuf"),
        ]


@dataclass
class Log:
    """A log and everything to write, read and check it."""

    url: str
    namespace: str
    engine: Engine
    reader: Engine
    keys: Keys
    store: AuditStore
    stream: Stream = field(default_factory=Stream)

    def append(self, messages: list[Message]) -> int:
        return len(self.store.append(self.drafts(messages)).recorded)

    def drafts(self, messages: list[Message]) -> list[Draft]:
        return [draft(one) for one in messages]

    def query(self) -> AuditQuery:
        return AuditQuery(self.reader, namespace=self.namespace)


@pytest.fixture
def engine_of() -> Iterator[Callable[[str, Mode], Engine]]:
    """Engines that are disposed of after the test."""
    engines: list[Engine] = []

    def make(url: str, mode: Mode) -> Engine:
        engines.append(open_engine(url, mode))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def make_log(tmp_path: Path, engine_of: Callable[[str, Mode], Engine]) -> Callable[..., Log]:
    """A fresh log in a database."""

    def make(url: str, namespace: str = NAMESPACE, origin: str = ORIGIN) -> Log:
        engine = engine_of(url, "write")
        migrate(engine)
        secrets = keys.load_or_create(tmp_path / "keys" / namespace, origin)
        store = AuditStore(engine, namespace=namespace, keys=secrets)
        store.open()
        return Log(url, namespace, engine, engine_of(url, "read"), secrets, store)

    return make


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'audit.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, make_log: Callable[[str], Log]) -> Log:
    """Each kind of database in turn: the contract of a store is tested on all."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return make_log(url)


@pytest.fixture
def sqlite_log(make_log: Callable[[str], Log], sqlite_url: str) -> Log:
    return make_log(sqlite_url)
