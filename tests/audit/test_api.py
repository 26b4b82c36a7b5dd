"""The HTTP API: what it shows, to whom, and that nothing is shown without a record of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from audit import auth
from audit.api import create_app
from audit.auth import Caller, TokenKey
from audit.checkpoint import VerifierKey, open_checkpoint
from audit.desk import Settings
from audit.document import canonical
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.verify import verify_case, verify_export
from govern import record as records
from govern.bus import Bus, Outgoing, Partition, open_bus
from govern.bus.embedded import EmbeddedBus
from govern.bus.protocol import BusError
from govern.bus.topics import specs, topic
from govern.codecs.cloudevents import from_message
from govern.errors import ConfigError, Forbidden
from govern.telemetry.metrics import Metrics

from .conftest import NAMESPACE, Log

KEY = TokenKey(key=SecretStr("0123456789abcdef0123456789abcdef"))
ADA = Caller(actor="ada", role="auditor")
OPERATOR = Caller(actor="otto", role="operator")


@pytest.fixture
async def bus(embedded_url: str) -> AsyncIterator[Bus]:
    async with open_bus(embedded_url) as opened:
        await opened.ensure_topics(specs(NAMESPACE))
        yield opened


@pytest.fixture
def filled(log: Log) -> Log:
    log.append(log.stream.everything())
    return log


def app_of(
    log: Log, bus: Bus, *, key: TokenKey | None = KEY, erasing: bool = False, disclosing: bool = True
) -> FastAPI:
    settings = Settings(
        token_key=key,
        encryption=log.keys.encryption if disclosing else None,
    )
    metrics = Metrics(CollectorRegistry())
    return create_app(log.query(), bus, settings, metrics=metrics, store=log.store if erasing else None)


def client_of(app: FastAPI, caller: Caller | None = ADA, *, host: str = "127.0.0.1") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {auth.mint(KEY, caller, ttl_s=60)}"} if caller else {}
    transport = httpx.ASGITransport(app=app, client=(host, 1), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://audit/v1/audit", headers=headers)


async def accesses(bus: Bus) -> list[tuple[str, str, str, str]]:
    found = [from_message(one) for one in await bus.read(Partition(topic(NAMESPACE, "access"), 0), 0)]
    return [(one.actor, one.action, one.subject, one.purpose) for one in found if isinstance(one, records.Access)]


async def test_reading_all_of_it(filled: Log, bus: Bus) -> None:
    async with client_of(app_of(filled, bus)) as client:
        note = (await client.get("/checkpoint")).text
        key = VerifierKey.parse((await client.get("/verifier-key")).text)
        checkpoint = open_checkpoint(note, key)

        page = (await client.get("/entries", params={"limit": 10})).json()
        assert (len(page["entries"]), page["next"]) == (10, 9)
        rest = (await client.get("/entries", params={"limit": 10, "after": page["next"]})).json()
        assert [one["index"] for one in rest["entries"]] == [10, 11, 12, 13]
        assert rest["next"] is None
        newest = (await client.get("/entries", params={"order": "newest-first", "limit": 1})).json()
        assert newest["entries"][0]["index"] == 13
        alarms = (await client.get("/entries", params={"alarm": True, "kind": "verdict"})).json()
        assert [one["leaf"]["record"]["step"] for one in alarms["entries"]] == ["outlier"]

        entry = (await client.get("/entries/3")).json()
        path = [bytes.fromhex(one) for one in entry["proof"]]
        leaf = leaf_hash(canonical(entry["leaf"]))
        assert verify_inclusion(leaf=leaf, index=3, size=14, proof=path, root=checkpoint.root)
        proof = (await client.get("/proofs/inclusion", params={"index": 3, "size": 14})).json()["hashes"]
        assert proof == entry["proof"]
        zero = open_checkpoint((await client.get("/checkpoint", params={"size": 0})).text, key)
        proof = (await client.get("/proofs/consistency", params={"first": 0, "second": 14})).json()["hashes"]
        assert verify_consistency(
            first_size=0, first_root=zero.root, second_size=14, second_root=checkpoint.root, proof=proof
        )

        case = await client.get("/cases/req-1", headers={"govern-purpose": "complaint 12"})
        report = verify_case(case.content, key)
        assert report.ok, report.findings
        assert report.opened == 4
        hidden = await client.get("/cases/req-1", params={"disclose": False})
        assert "31x" not in hidden.text

        export = await client.get("/export", params={"since": 0, "disclose": True, "first": 2})
        assert export.headers["content-type"] == "application/x-ndjson"
        report = verify_export(export.content.splitlines(), key)
        assert report.ok, report.findings
        assert report.entries == 12

        kinds = {one["kind"]: one["entries"] for one in (await client.get("/statistics")).json()}
        assert kinds["inference"] == 6
    seen = await accesses(bus)
    assert len(seen) == 14
    assert ("ada", "case", "req-1", "complaint 12") in seen
    assert ("ada", "entry", "req-3", "") in seen
    assert ("ada", "query", "kind=verdict&alarm=True", "") in seen


async def test_without_the_bus_there_is_no_data(filled: Log, tmp_path: Path) -> None:
    """Fail closed: the bus's file may not grow any more, as on a full disk."""
    async with EmbeddedBus(tmp_path / "full.db", max_bytes=1_000_000) as bus, client_of(app_of(filled, bus)) as client:
        await bus.ensure_topics(specs(NAMESPACE))
        assert (await client.get("/cases/req-1")).status_code == 200
        with pytest.raises(BusError):
            await fill(bus, 10_000)
        with pytest.raises(BusError):
            await fill(bus, 100)
        paths = ("cases/req-1", "entries", "entries/1", "export", "checkpoint", "statistics", "verifier-key")
        for path in (*paths, "proofs/inclusion?index=0&size=1", "proofs/consistency?first=0&second=1"):
            answer = await client.get(f"/{path}")
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["type"] == "urn:govern:error:access-not-recorded"
            assert set(problem) == {"type", "title", "status", "detail", "fix", "instance"}


async def fill(bus: Bus, size: int) -> None:
    while True:
        await bus.publish(topic(NAMESPACE, "config"), [Outgoing(key=b"", value=bytes(size))])


async def test_errors_are_problem_documents(filled: Log, bus: Bus) -> None:
    async with client_of(app_of(filled, bus)) as client:
        for path, status, type_ in (
            ("/cases/nobody", 404, "urn:govern:error:not-found"),
            ("/entries/99", 404, "urn:govern:error:not-found"),
            ("/entries/x", 422, "urn:govern:error:bad-input"),
            ("/entries?limit=0", 422, "urn:govern:error:bad-input"),
            ("/export?first=99", 422, "urn:govern:error:bad-input"),
            ("/export?since=3", 404, "urn:govern:error:not-found"),
            ("/proofs/inclusion?index=9&size=3", 422, "urn:govern:error:bad-input"),
            ("/nowhere", 404, "urn:govern:error:http"),
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (status, type_), path
            assert answer.headers["content-type"] == "application/problem+json"


async def test_strangers_see_nothing(filled: Log, bus: Bus) -> None:
    app = app_of(filled, bus)
    now = int(time.time())
    claims = {"sub": "eve", "role": "auditor", "aud": "govern-audit", "exp": now + 60}
    secret = KEY.key.get_secret_value()
    tokens = {
        "": 401,
        "Basic abc": 401,
        "Bearer": 401,
        "Bearer abc": 401,
        f"Bearer {jwt.encode(claims, 'x' * 32)}": 401,
        f"Bearer {jwt.encode({**claims, 'exp': now - 1}, secret)}": 401,
        f"Bearer {jwt.encode({**claims, 'aud': 'other'}, secret)}": 401,
        f"Bearer {jwt.encode({k: v for k, v in claims.items() if k != 'exp'}, secret)}": 401,
        f"Bearer {jwt.encode(claims, None, algorithm='none')}": 401,
        f"Bearer {jwt.encode({**claims, 'role': 'root'}, secret)}": 403,
        f"Bearer {jwt.encode({**claims, 'sub': ''}, secret)}": 403,
        f"Bearer {jwt.encode(claims, secret)}": 200,
    }
    async with client_of(app, None) as client:
        for header, status in tokens.items():
            answer = await client.get("/entries", headers={"Authorization": header} if header else {})
            assert answer.status_code == status, header
            if status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await accesses(bus) == [("eve", "query", "", "")]


async def test_public_keys(filled: Log, bus: Bus) -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = TokenKey(algorithm="EdDSA", key=SecretStr(public))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    claims = {"sub": "eva", "role": "auditor", "aud": "govern-audit", "exp": int(time.time()) + 60}
    async with client_of(app_of(filled, bus, key=key), None) as client:
        token = jwt.encode(claims, pem, algorithm="EdDSA")
        assert (await client.get("/statistics", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        # The public key must not serve as a shared secret (algorithm confusion).
        with pytest.raises(jwt.InvalidKeyError):
            jwt.encode(claims, public, algorithm="HS256")
    with pytest.raises(ConfigError, match="EdDSA"):
        app_of(filled, bus, key=TokenKey(algorithm="EdDSA", key=SecretStr("no key")))
    with pytest.raises(ConfigError, match="HS256"):
        app_of(filled, bus, key=TokenKey(key=SecretStr("short")))
    with pytest.raises(ConfigError, match="tokens under EdDSA"):
        auth.mint(key, ADA, ttl_s=1)


async def test_without_authentication_only_this_machine(filled: Log, bus: Bus) -> None:
    app = app_of(filled, bus, key=None, erasing=True)
    async with client_of(app, None) as client:
        assert (await client.get("/entries")).status_code == 200
        refused = await client.post("/erasures", json={"subject": "request:req-1", "reason": "x"})
        assert refused.status_code == 403
    for host in ("10.0.0.7", "testclient"):
        async with client_of(app, None, host=host) as client:
            assert (await client.get("/entries")).status_code == 403
    assert await accesses(bus) == [("anonymous", "query", "", "")]


async def test_erasing_is_for_operators(filled: Log, bus: Bus) -> None:
    asked = {"subject": "request:req-1", "reason": "ticket 1"}
    async with client_of(app_of(filled, bus, erasing=True), ADA) as client:
        assert (await client.post("/erasures", json=asked)).status_code == 403
    async with client_of(app_of(filled, bus), OPERATOR) as client:
        assert (await client.post("/erasures", json=asked)).status_code == 403
    async with client_of(app_of(filled, bus, erasing=True), OPERATOR) as client:
        done = await client.post("/erasures", json=asked)
        assert done.status_code == 201
        assert done.json()["entry"] == 14
        assert (await client.post("/erasures", json=asked)).status_code == 404
        assert (await client.post("/erasures", json={**asked, "subject": "x"})).status_code == 422
        assert (await client.post("/erasures", json={})).status_code == 422
        case = (await client.get("/cases/req-1")).json()
    assert case["summary"]["erasures"][0]["actor"] == "otto"
    assert verify_case(json.dumps(case), filled.store.verifier).ok


async def test_without_the_encryption_key_nothing_is_disclosed(filled: Log, bus: Bus) -> None:
    async with client_of(app_of(filled, bus, disclosing=False)) as client:
        case = (await client.get("/cases/req-1")).json()
        assert {one["data"] for one in case["summary"]["inferences"]} == {"undisclosed"}


async def test_the_openapi_page(sqlite_log: Log, bus: Bus) -> None:
    app = app_of(sqlite_log, bus)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://audit") as client:
        document = (await client.get("/openapi.json")).json()
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/healthz")).text == "ok\n"
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == 10
    for operation in operations:
        assert operation["description"]
        assert {"401", "403", "503"} <= operation["responses"].keys()


def test_roles() -> None:
    with pytest.raises(Forbidden, match="role 'auditor'"):
        auth.require(ADA, "operator")
    auth.require(OPERATOR, "operator")
