"""`govern audit`: write, query, export and verify the audit log."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from rich.console import Console

from audit import auth, keys
from audit.api import create_app
from audit.auth import Algorithm, Caller, Role, TokenKey
from audit.case import case as case_file
from audit.checkpoint import VerifierKey
from audit.desk import Settings
from audit.export import export as export_lines
from audit.founding import keys_folder, opened
from audit.fsck import verify_database
from audit.query import Filter
from audit.reading import Reading, querying, read_recorded
from audit.report import Report
from audit.retention import erase as erase_subject
from audit.seal import KeyEncryptionKey
from audit.verify import verify_case, verify_export
from audit.writer import AuditWriter
from govern.bus import open_bus
from govern.cli._common import (
    BusOption,
    InstanceIdOption,
    MetricsHostOption,
    MetricsPortOption,
    NamespaceOption,
    OtlpOption,
    SessionTimeoutOption,
    run_until_signal,
    telemetry,
)
from govern.cli._files import read_text, write_whole
from govern.errors import ConfigError
from govern.telemetry.logging import configure
from govern.web.listening import listen
from govern.web.listening import serve as serve_app

app = typer.Typer(no_args_is_help=True)

DbOption = Annotated[
    str,
    typer.Option(
        "--db", envvar="GOVERN_AUDIT_DB", help="sqlite:////absolute/file.db or postgresql+psycopg://user@host/database"
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", envvar="GOVERN_AUDIT_KEYS", help="Key folder; beside an SQLite file: <file>.keys."),
]
OriginOption = Annotated[
    str | None, typer.Option("--origin", help="Name of a new log in its checkpoints; default govern/<namespace>.")
]
LoggedBusOption = Annotated[
    str | None,
    typer.Option("--bus", envvar="GOVERN_BUS", help="Where this read is recorded: kafka://… or embedded:///…"),
]
TokenKeyOption = Annotated[
    str | None,
    typer.Option("--token-key", envvar="GOVERN_AUDIT_TOKEN_KEY", help="Shared secret (HS256), or a public key in PEM."),
]
PurposeOption = Annotated[str, typer.Option("--purpose", help="Why you look; recorded with the access.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; standard output by default.")]
DiscloseOption = Annotated[bool, typer.Option("--disclose/--no-disclose", help="Open the withheld fields.")]

#: Exit code of a verification that found something: neither bad input (2) nor a failure to run (1).
EXIT_FINDINGS: Final = 3
#: Findings that are printed; the count tells of the others.
_SHOWN_FINDINGS: Final = 20


@app.command()
def init(
    db: DbOption, namespace: NamespaceOption = "default", keys_: KeysOption = None, origin: OriginOption = None
) -> None:
    """Make the database's schema, the keys and the log, where they are absent; print the verifier key."""
    configure(level="INFO", json=False)
    with opened(db, namespace, keys_folder(db, keys_), origin=origin) as store:
        typer.echo(str(store.verifier))


@app.command()
def keygen(
    folder: Annotated[Path, typer.Argument(help="Key folder to make.")],
    origin: Annotated[str, typer.Option("--origin", help="Name of the log, such as example.com/audit/credit.")],
) -> None:
    """Make the keys of a log, and print its verifier key."""
    configure(level="INFO", json=False)
    typer.echo(str(keys.load_or_create(folder, origin).signer.verifier))


@app.command()
def write(
    bus: BusOption,
    db: DbOption,
    namespace: NamespaceOption = "default",
    keys_: KeysOption = None,
    origin: OriginOption = None,
    group: Annotated[str, typer.Option(help="Consumer group, for monitoring the lag.")] = "govern-audit",
    group_instance_id: InstanceIdOption = None,
    session_timeout_s: SessionTimeoutOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
) -> None:
    """Append what is published in a namespace to its log, until SIGTERM or Ctrl-C."""

    async def serve(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            metrics, provider = telemetry(
                stack, "govern-audit", CollectorRegistry(), (metrics_host, metrics_port), otlp
            )
            store = stack.enter_context(opened(db, namespace, keys_folder(db, keys_), origin=origin))
            async with open_bus(
                bus, client_id="govern-audit", instance_id=group_instance_id, session_timeout_s=session_timeout_s
            ) as connection:
                tracer = provider.get_tracer("govern.audit") if otlp else None
                await AuditWriter(bus=connection, store=store, metrics=metrics, tracer=tracer, group=group).run(stop)

    run_until_signal(serve)


@app.command()
def serve(
    bus: BusOption,
    db: DbOption,
    namespace: NamespaceOption = "default",
    keys_: Annotated[
        Path | None,
        typer.Option("--keys", envvar="GOVERN_AUDIT_KEYS", help="Key folder; without it nothing withheld is shown."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0 takes a free one.")] = 8090,
    token_key: TokenKeyOption = None,
    algorithm: Annotated[Algorithm, typer.Option("--token-algorithm", help="Of the token key.")] = "HS256",
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Answer whoever asks from this machine. For trying out only.")
    ] = False,
    allow_erasure: Annotated[
        bool, typer.Option("--allow-erasure", help="Let operators erase; needs a database login that may write.")
    ] = False,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
) -> None:
    """Answer questions about the log over HTTP; every read is recorded first. OpenAPI page at /docs."""
    key = _token_key(token_key, algorithm, insecure=insecure_no_auth, host=host)
    listening = listen(host, port)

    async def serving(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            stack.callback(listening.close)
            metrics, _ = telemetry(stack, "govern-audit-api", CollectorRegistry(), (metrics_host, metrics_port), otlp)
            store = None
            if allow_erasure:
                store = stack.enter_context(opened(db, namespace, keys_folder(db, keys_)))
            query = stack.enter_context(querying(db, namespace))
            settings = Settings(token_key=key, encryption=None if keys_ is None else keys.load_encryption(keys_))
            async with open_bus(bus, client_id="govern-audit-api") as connection:
                api = create_app(query, connection, settings, metrics=metrics, store=store)
                await serve_app(api, listening, stop)

    run_until_signal(serving)


@app.command()
def case(
    request_id: Annotated[str, typer.Argument(help="The caller's request id, or the inference's id.")],
    db: DbOption,
    bus: LoggedBusOption = None,
    namespace: NamespaceOption = "default",
    keys_: KeysOption = None,
    out: OutOption = None,
    disclose: DiscloseOption = True,
    purpose: PurposeOption = "",
) -> None:
    """All that the log says of one request, as a case file that proves itself."""
    encryption = _encryption(db, keys_) if disclose else None
    reading = Reading(_actor(), "case", request_id, purpose)
    with querying(db, namespace) as query:
        document = read_recorded(query, bus, reading, lambda view: case_file(view, request_id, encryption=encryption))
    _write([json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"], out)


@app.command()
def export(
    db: DbOption,
    bus: LoggedBusOption = None,
    namespace: NamespaceOption = "default",
    keys_: KeysOption = None,
    first: Annotated[int | None, typer.Option(min=0, help="Lowest entry index.")] = None,
    last: Annotated[int | None, typer.Option(min=0, help="Highest entry index.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    model: Annotated[str | None, typer.Option(help="Only entries of this model.")] = None,
    since: Annotated[Path | None, typer.Option(help="Older checkpoint that the export shall extend.")] = None,
    out: OutOption = None,
    disclose: DiscloseOption = False,
    purpose: PurposeOption = "",
) -> None:
    """A range of the log, or a selection from it, as NDJSON that proves itself."""
    encryption = _encryption(db, keys_) if disclose else None
    wanted = Filter(first=first, last=last, kind=kind, model=model)
    older = None if since is None else read_text(since)
    asked = f"entries {0 if first is None else first} to {'the end' if last is None else last}"
    reading = Reading(_actor(), "export", asked, purpose)
    with querying(db, namespace) as query:
        read_recorded(
            query,
            bus,
            reading,
            lambda view: _write(export_lines(view, wanted, encryption=encryption, since=older), out),
        )


@app.command()
def verify(
    key: Annotated[str, typer.Option("--key", help="Verifier key of the log, or the file that holds it.")],
    file: Annotated[Path | None, typer.Argument(help="Case file or export; - is standard input.")] = None,
    db: Annotated[str | None, typer.Option("--db", help="Check a whole database instead.")] = None,
    keys_: Annotated[Path | None, typer.Option("--keys", help="With --db: also open every withheld field.")] = None,
) -> None:
    """Check a case file, an export or a whole database. Exit code 0: whole; 3: something was changed."""
    trusted = _verifier_key(key)
    if (file is None) == (db is None):
        raise ConfigError("what to verify", why="it is either a file or --db URL", fix="name one of the two")
    if db is not None:
        report = verify_database(db, trusted, None if keys_ is None else keys.load_encryption(keys_))
    else:
        report = _verify_file(file or Path("-"), trusted)
    _print(report)
    if not report.ok:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def erase(
    subject: Annotated[str, typer.Argument(help="request:<id>, principal:<hash> or record:<id>.")],
    reason: Annotated[str, typer.Option("--reason", help="For the record; no personal data, it can never be erased.")],
    db: DbOption,
    namespace: NamespaceOption = "default",
    keys_: KeysOption = None,
) -> None:
    """Destroy the data keys of a person. Every proof stays valid."""
    with opened(db, namespace, keys_folder(db, keys_)) as store:
        done = erase_subject(store, subject, actor=_actor(), reason=reason)
    typer.echo(f"{len(done.keys)} data keys destroyed, {done.entries} entries erased; recorded as entry {done.index}")


@app.command()
def token(
    actor: Annotated[str, typer.Argument(help="Who will read; written into every access record.")],
    role: Annotated[Role, typer.Option(help="auditor reads; operator may also erase.")] = "auditor",
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is valid.")] = 8.0,
    token_key: TokenKeyOption = None,
) -> None:
    """Mint a token for the API (HS256)."""
    if token_key is None:
        raise ConfigError("token key", why="it is not set", fix="set GOVERN_AUDIT_TOKEN_KEY: openssl rand -hex 32")
    caller = Caller(actor=actor, role=role)
    typer.echo(auth.mint(TokenKey(key=SecretStr(token_key)), caller, ttl_s=hours * 3600))


def _encryption(db: str, folder: Path | None) -> KeyEncryptionKey:
    return keys.load_encryption(keys_folder(db, folder))


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


def _write(chunks: Iterable[bytes], out: Path | None) -> None:
    if out is None:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        return
    write_whole(out, chunks)


def _verifier_key(text: str) -> VerifierKey:
    path = Path(text)
    return VerifierKey.parse(read_text(path) if path.is_file() else text)


def _verify_file(path: Path, trusted: VerifierKey) -> Report:
    """An export is told from a case file by its first line, which is a whole document."""
    if str(path) != "-" and not path.is_file():
        raise ConfigError(f"file {path}", why="there is none", fix="name a case file or an export")
    with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
        first = file.readline()
        if b'"io.govern.export.' in first:
            return verify_export(_chain(first, file), trusted)
        return verify_case(first + file.read(), trusted)


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _print(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if report.ok:
        console.print("[bold green]whole[/]", end=" ")
    else:
        console.print("[bold red]changed[/]", end=" ")
    console.print(
        f"log {report.log}: {report.entries} entries proved against the signed tree of {report.size},"
        f" {report.opened} with their withheld fields",
        markup=False,
    )
    for finding in report.findings[:_SHOWN_FINDINGS]:
        console.print(f"  {finding}", markup=False)
    if len(report.findings) > _SHOWN_FINDINGS:
        console.print(f"  … and {len(report.findings) - _SHOWN_FINDINGS} more")


def _token_key(text: str | None, algorithm: Algorithm, *, insecure: bool, host: str) -> TokenKey | None:
    if insecure:
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                f"--insecure-no-auth on {host}",
                why="without authentication the log is shown on this machine only",
                fix="listen on 127.0.0.1, or set GOVERN_AUDIT_TOKEN_KEY",
            )
        return None
    if text is None:
        raise ConfigError(
            "token key of the audit API",
            why="without it nobody can be told from anybody",
            fix="set GOVERN_AUDIT_TOKEN_KEY (openssl rand -hex 32); for trying out, --insecure-no-auth",
        )
    return TokenKey(algorithm=algorithm, key=SecretStr(text))
