"""What capture takes in memory while Kafka is away: one hour's worth of traffic through the proxy.

    python -m tests.bench.capture_hour [--requests 1800000] [--markdown]

1,800,000 requests of 1 KB are an hour at 500 a second; wrk sends them as fast as they are answered. The spool fills,
then the disk, and what finds no room is dropped and counted. The memory of each process is printed as it was at the
beginning, at most, and at the end; the beginning is when the spool is full for the first time, since up to there it
grows by design. Then Kafka comes back, and what was kept must arrive.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from govern.mirror.agent import Counts
from govern.mirror.folder import segments
from tests.bench.capturing.load import Watch, load
from tests.bench.capturing.setting import Setting, setting, yielding
from tests.bench.capturing.table import Table, circumstances, told

#: The hour's requests a second; before Kafka goes away the processes get to know them.
RATE: Final = 500
#: Of each turn, between two looks at how many requests there were.
TURN_S: Final = 5
FLAT: Final = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=3600 * RATE)
    parser.add_argument("--markdown", action="store_true", help="as docs/capture/performance.md has it")
    options = parser.parse_args()
    circumstances("tests.bench.capture_hour", wrk="-v", nginx="-v")
    with setting(embedded=False) as at:
        assert at.kafka is not None
        pids = {"proxy": at.proxy.process.pid, "shipper": at.shipper.process.pid}
        load(at.proxy.port, "1KB", RATE, TURN_S, Watch(pids))
        at.wait_until_shipped()
        at.kafka.stop()
        titles = ("requests", "requests/s", "dropped", "spool MB", *(f"{name} MB" for name in pids))
        table = Table(*titles, markdown=options.markdown)
        began = time.monotonic()
        curve = away(at, table, pids, options.requests)
        took_s = time.monotonic() - began
        counts = at.counts()
        with yielding():
            at.kafka.start()
        at.wait_until_shipped()
    told(derived(curve, counts, took_s), markdown=options.markdown)


def away(at: Setting, table: Table, pids: Mapping[str, int], n_requests: int) -> dict[str, list[int]]:
    """Send the requests, and print a row for each turn; the resident memory of each process from the first one on
    that found the spool full."""
    curve: dict[str, list[int]] = {name: [] for name in pids}
    sent, full = 0, False
    while sent < n_requests:
        watch = Watch(pids)
        answers = load(at.proxy.port, "1KB", None, TURN_S, watch)
        if answers.n_errors:
            raise SystemExit(f"{answers.n_errors} requests failed")
        sent += answers.n_requests
        spool = sum(each.path.stat().st_size for each in segments(at.spool))
        dropped = at.counts().dropped
        now = (statistics.mean(sizes) / 2**20 for sizes in watch.samples.values())
        sizes = (f"{size:.1f}" for size in (spool / 2**20, *now))
        table.row(f"{sent:,}", f"{answers.per_s:,.0f}", f"{dropped:,}", *sizes)
        if full:
            for name, each in watch.samples.items():
                curve[name] += each
        full = full or dropped > 0
    return curve


def derived(curve: Mapping[str, Sequence[int]], counts: Counts, took_s: float) -> Iterator[str]:
    yield f"with Kafka away for {took_s:.0f} s, sent as fast as they were answered"
    yield f"seen {counts.seen:,} = captured {counts.captured:,} + dropped {counts.dropped:,}; all captured are shipped"
    for name, sizes in curve.items():
        yield f"{name}: {flatness(sizes)}"


def flatness(sizes: Sequence[int]) -> str:
    share = max(1, len(sizes) // 20)
    first, last = statistics.mean(sizes[:share]), statistics.mean(sizes[-share:])
    worst = max(abs(size / first - 1) for size in sizes)
    told = f"{first / 2**20:.1f} MB at first, {max(sizes) / 2**20:.1f} at most, {last / 2**20:.1f} at last"
    return (
        f"{told}; never more than {worst:.1%} away from the first (<= {FLAT:.0%}: {'yes' if worst <= FLAT else 'no'})"
    )


if __name__ == "__main__":
    main()
