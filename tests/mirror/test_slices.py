"""Who goes first where a proxy, the shipper and others want the same processor."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from govern.mirror.slices import LONG_NS, SHORT_NS, slices_of
from tests.mirror.conftest import govern
from tests.services.process import Process, free_port, listening

pytestmark = pytest.mark.skipif(
    slices_of(os.getpid()) == 0, reason="this kernel (Linux before 6.12) has slices of one length for all"
)


def test_whoever_carries_requests_goes_before_everybody_and_the_shipper_after(
    proxy_process: Callable[..., Process], tmp_path: Path, spool_dir: Path
) -> None:
    proxy = proxy_process(free_port(), free_port(), "--service", "income")
    metrics = free_port()
    shipper = Process(
        govern(
            *("mirror", "ship", "--service", "income", "--spool-dir", str(spool_dir)),
            *("--bus", f"embedded://{tmp_path}/bus.db", "--disk-dir", str(tmp_path / "disk")),
            *("--metrics-listen", f"127.0.0.1:{metrics}"),
        ),
        log=tmp_path / "shipper.log",
    )
    shipper.start(lambda _: listening(metrics))
    try:
        assert slices_of(shipper.pid) == LONG_NS > slices_of(os.getpid()) > SHORT_NS == slices_of(proxy.pid)
    finally:
        proxy.stop()
        shipper.stop()
