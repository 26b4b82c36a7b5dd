"""Stages 7 and 8: the case file of one person, and what happens when a single byte is changed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx

from audit.database import sqlite_path
from govern.cli.demo.commands import Ran, run
from govern.cli.demo.stack import TOKEN_KEY, Stack
from govern.cli.demo.story import Story
from govern.errors import Unavailable
from govern.schema import FeatureSchema

#: Who asks, as the log will say.
AUDITOR: Final = "auditor@labour-office.example"
PURPOSE: Final = "complaint of the person"
#: Exit code of `govern audit verify` when something was changed.
EXIT_CHANGED: Final = 3
#: What is changed in the copy: the version of the model that decided.
BEFORE, AFTER = b'"revision":"2015"', b'"revision":"2016"'
_API_TIMEOUT_S: Final = 30.0
#: The writer appends a record within a second; the machine may be busy.
RECORDED_DEADLINE_S: Final = 30.0
_AGAIN_S: Final = 1.0
#: Findings that are shown: the changed entry, and a few of the hashes and signatures above it.
_SHOWN_FINDINGS: Final = 4


async def prove(story: Story, stack: Stack, request_id: str, schema: FeatureSchema) -> Path:
    """Fetch the person's case file as an auditor would, and check it without any server."""
    story.stage(
        "The proof: this person's case file",
        "Everything that was seen, judged and explained went into a log in which nothing can be changed or left out"
        " unnoticed: each entry is a leaf of a Merkle tree, a tree of hashes whose root is signed. An auditor asks for"
        " one person's case, and that question is itself written down.",
    )
    token = await mint(stack)
    async with httpx.AsyncClient(timeout=_API_TIMEOUT_S, headers={"authorization": f"Bearer {token}"}) as client:
        content = await _case(client, stack, request_id)
    path = stack.work.folder / "case.json"
    path.write_bytes(content)
    _tell(story, json.loads(content), len(content), schema)
    checked = await verify(story, stack, "case.json", str(path))
    story.check("the case file proves itself offline, with nothing but the log's public key", checked.returncode == 0)
    story.check("it says who looked, and why", AUDITOR.encode() in content and PURPOSE.encode() in content)
    return path


async def _case(client: httpx.AsyncClient, stack: Stack, request_id: str) -> bytes:
    """The case file, asked for until it shows that it was asked for: the record of a question takes a moment."""
    address = f"{stack.at.audit}/v1/audit/cases/{request_id}"
    deadline = time.monotonic() + RECORDED_DEADLINE_S
    while True:
        response = await client.get(address, headers={"govern-purpose": PURPOSE})
        if response.is_error:
            raise Unavailable(
                f"GET {address} answers {response.status_code}",
                why=response.text,
                fix=f"read {stack.work.logs / 'audit-api.log'}",
            )
        if AUDITOR.encode() in response.content or time.monotonic() > deadline:
            return response.content
        await asyncio.sleep(_AGAIN_S)


async def mint(stack: Stack) -> str:
    """A token of the auditor for the audit API."""
    ran = await run(["audit", "token", AUDITOR, "--role", "auditor"], added={TOKEN_KEY: stack.token_key})
    return ran.output.strip()


async def tamper(story: Story, stack: Stack, case: Path) -> None:
    """Change one byte of a copy, and let the verification find it."""
    story.stage(
        "The test of the proof: somebody changes one byte",
        "In a copy of the log, the decision about this person is moved to another version of the model: 2015 becomes"
        " 2016. Whoever does that has every right on the database, and takes its guards away and puts them back.",
    )
    entry = await asyncio.to_thread(_decision, case)
    if sqlite_path(stack.database_url) is not None:
        copy = stack.work.folder / "audit-changed.db"
        await asyncio.to_thread(_copy, sqlite_path(stack.database_url), copy)
        before = await verify(story, stack, "the copy", "--db", f"sqlite:///{copy}", quiet=True)
        story.check("the copy is whole before the change", before.returncode == 0)
        await asyncio.to_thread(_change_database, copy, entry)
        after = await verify(story, stack, "the changed copy", "--db", f"sqlite:///{copy}")
    else:
        copy = stack.work.folder / "export.ndjson"
        log = ["--db", stack.database_url, "--namespace", stack.namespace, "--keys", str(stack.work.keys)]
        await run(["audit", "export", *log, "--bus", stack.bus_url, "--out", str(copy)])
        before = await verify(story, stack, "the export", str(copy), quiet=True)
        story.check("the export of the whole log is whole before the change", before.returncode == 0)
        await asyncio.to_thread(_change_export, copy, entry)
        after = await verify(story, stack, "the changed export", str(copy))
    story.check(
        f"the change is found, and named: entry {entry}",
        after.returncode == EXIT_CHANGED and f"entry {entry}" in after.output,
    )


async def verify(story: Story, stack: Stack, what: str, *arguments: str, quiet: bool = False) -> Ran:
    """Run `govern audit verify` on a file or database, and show what it says."""
    key = stack.work.keys / "verifier-key.txt"
    ran = await run(["audit", "verify", "--key", str(key), *arguments], may_fail=True)
    if not quiet:
        story.say(f"[dim]$ govern audit verify --key verifier-key.txt {arguments[-1].rpartition('/')[2]}[/]")
        story.quote(_short(ran.output))
    return ran


def _short(output: str) -> str:
    """What verify prints, without most of the findings that follow from the first."""
    lines = output.splitlines()
    findings = [number for number, line in enumerate(lines) if line.startswith("  ")]
    if len(findings) <= _SHOWN_FINDINGS:
        return output
    return "\n".join(
        [*lines[: findings[_SHOWN_FINDINGS]], f"  … and what follows from it, {len(findings)} lines in all"]
    )


def _tell(story: Story, case: dict[str, Any], size: int, schema: FeatureSchema) -> None:
    summary = case["summary"]
    decision = summary["inferences"][0]
    story.facts(
        [
            ("decided by", f"{decision['service']}/{decision['model']}, version {decision['revision']}"),
            ("when", str(decision["answered"])),
            ("judged", "; ".join(_judged(one, schema) for one in summary["verdicts"]) or "by nobody"),
            ("explained by", ", ".join(sorted({str(one["method"]) for one in summary["explanations"]})) or "nothing"),
            ("known later", ", ".join(str(one["label"]) for one in summary["feedback"]) or "nothing"),
            ("who looked", ", ".join(sorted({str(one["actor"]) for one in summary["accesses"]})) or "nobody"),
            ("proof", f"{len(case['entries'])} entries with their paths to the signed root; {size:,} bytes, case.json"),
        ]
    )


def _judged(verdict: dict[str, Any], schema: FeatureSchema) -> str:
    if verdict["kind"] == "drift":
        names = [schema[name].words for name in verdict["drifted_features"]]
        return f"drift in {', '.join(names)} at the time" if names else "no drift at the time"
    flagged = any(one["flagged"] for one in verdict["results"])
    return f"{verdict['step']}: {'flagged' if flagged else 'not flagged'}"


def _decision(case: Path) -> int:
    """Index of the entry of the person's inference."""
    return int(json.loads(case.read_bytes())["summary"]["inferences"][0]["entry"])


def _copy(source: Path | None, target: Path) -> None:
    """A consistent copy of an SQLite database that is being written."""
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _change_database(path: Path, entry: int) -> None:
    """One byte of the entry's leaf, past the triggers that keep the table append-only."""
    with closing(sqlite3.connect(path)) as connection, connection:
        guards = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'entries'"
        ).fetchall()
        for name, _ in guards:
            connection.execute(f'DROP TRIGGER "{name}"')
        (leaf,) = connection.execute('SELECT leaf FROM entries WHERE "index" = ?', (entry,)).fetchone()
        connection.execute('UPDATE entries SET leaf = ? WHERE "index" = ?', (_changed(leaf), entry))
        for _, sql in guards:
            connection.execute(sql)


def _change_export(path: Path, entry: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if json.loads(line).get("index") == entry:
            lines[number] = _changed(line)
    path.write_bytes(b"".join(lines))


def _changed(content: bytes) -> bytes:
    """The same with one byte changed."""
    changed = content.replace(BEFORE, AFTER, 1)
    assert sum(a != b for a, b in zip(content, changed, strict=True)) == 1
    return changed
