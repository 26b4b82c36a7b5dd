"""How fast the audit log writes and proves: `python -m tests.bench.audit [--entries 20000] [--postgres]`."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from audit.case import case
from audit.entry import draft
from audit.founding import opened
from audit.fsck import verify_database
from audit.reading import querying
from govern import record as records
from govern.bus import Message
from govern.bus.topics import topic
from govern.codecs.cloudevents import to_message
from tests.services.postgres import Postgres

NAMESPACE = "bench"
BATCH = 500
#: A V2 JSON request of 16 features, as the demo sends it.
_TENSORS = [b'{"name":"f%d","shape":[1,1],"datatype":"FP64","data":[%d.5]}' % (n, n) for n in range(16)]
BODY = b'{"inputs":[' + b",".join(_TENSORS) + b"]}"
PROOFS = 500


def message(n: int) -> Message:
    record = records.Inference(
        schema_version=1,
        id=f"019342f0-0000-7000-8000-{n:012x}",
        request_id=f"req-{n}",
        traceparent=f"00-{n + 1:032x}-{n + 1:016x}-01",
        namespace=NAMESPACE,
        service="census",
        model="income",
        revision="1",
        endpoint="default",
        protocol="v2",
        t_request=1_700_000_000_000_000_000 + n,
        t_response=1_700_000_000_005_000_000 + n,
        status_code=200,
        request=records.Payload(content_type="application/json", body=BODY, size=len(BODY), sha256="ab" * 32),
        response=records.Payload(content_type="application/json", body=BODY[:200], size=200, sha256="cd" * 32),
        sampling=records.Sampling(rate=1.0, strategy="all"),
        capture=records.Capture(agent="a1", pod="p", seq=n),
        path="/v2/models/income/infer",
    )
    out = to_message(record, source="/bench")
    return Message(
        topic=topic(NAMESPACE, "inferences"),
        partition=0,
        offset=n,
        timestamp_ms=0,
        key=out.key,
        value=out.value,
        headers=out.headers,
    )


def measure(url: str, folder: Path, count: int) -> dict[str, float]:
    """Entries per second appended (decoding, encryption, hashing, signing, commit to disk), and times of reads."""
    messages = [message(n) for n in range(count)]
    found: dict[str, float] = {}
    with opened(url, NAMESPACE, folder) as store:
        started = time.perf_counter()
        for start in range(0, count, BATCH):
            store.append([draft(one) for one in messages[start : start + BATCH]])
        found["entries/s appended"] = count / (time.perf_counter() - started)
        choice = random.Random(1)
        with querying(url, NAMESPACE) as query, query.snapshot() as view:
            started = time.perf_counter()
            for _ in range(PROOFS):
                view.inclusion(choice.randrange(count), count)
            found["ms per inclusion proof"] = (time.perf_counter() - started) * 1000 / PROOFS
            started = time.perf_counter()
            for _ in range(PROOFS // 10):
                view.consistency(choice.randrange(1, count), count)
            found["ms per consistency proof"] = (time.perf_counter() - started) * 1000 / (PROOFS // 10)
            started = time.perf_counter()
            for _ in range(PROOFS // 10):
                case(view, f"req-{choice.randrange(count)}", encryption=store.keys.encryption)
            found["ms per case file"] = (time.perf_counter() - started) * 1000 / (PROOFS // 10)
        started = time.perf_counter()
        report = verify_database(url, store.verifier, store.keys.encryption)
        assert report.ok, report.findings
        found["entries/s verified"] = report.entries / (time.perf_counter() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--postgres", action="store_true", help="also on a real PostgreSQL")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="govern-bench-")))
        urls = {"SQLite": f"sqlite:///{folder / 'audit.db'}"}
        if asked.postgres:
            urls["PostgreSQL"] = stack.enter_context(stack.enter_context(Postgres()).database())
        for name, url in urls.items():
            for what, value in measure(url, folder / name, asked.entries).items():
                print(f"{name:10}  {what:26} {value:10,.1f}")


if __name__ == "__main__":
    main()
