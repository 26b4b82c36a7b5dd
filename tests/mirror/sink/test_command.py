"""`govern mirror sink` as a process: new rules, and its end."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.mirror.conftest import govern, records, renew, until
from tests.mirror.sink.events import acknowledged, kserve
from tests.services.process import Process, free_port, listening


def test_new_rules_are_followed_and_sigterm_records_what_waits(tmp_path: Path, spool_dir: Path) -> None:
    port = free_port()
    file = tmp_path / "mirror.yaml"
    rules = f"listen: 127.0.0.1:{port}\nspool_dir: {spool_dir}\nheaders: [%s]\n"
    file.write_text(rules % "x-old")
    process = Process(govern("mirror", "sink", "--config", str(file)), log=tmp_path / "log")
    process.start(lambda _: listening(port))
    try:
        metadata = '{"X-Old":["1"],"X-New":["2"]}'
        assert acknowledged(port, kserve("request", "before", metadata=metadata))
        renew(file, rules % "x-new")
        until(lambda: "new rules are taken over" in process.log(), "the new rules")
        for name, side in (("before", "response"), ("after", "request")):
            assert acknowledged(port, kserve(side, name, metadata=metadata))
    finally:
        process.stop()
    found = {each.request_id: each for each in records([spool_dir])}
    assert found["before"].request.headers == {"x-old": "1"}
    assert found["before"].response.headers == {"x-new": "2"}
    assert found["after"].request.headers == {"x-new": "2"}
    assert (found["before"].missing, found["after"].missing) == ((), ("response",))


def test_a_port_in_use_is_refused_with_what_to_do(tmp_path: Path, spool_dir: Path) -> None:

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            govern("mirror", "sink", "--listen", address, "--spool-dir", str(spool_dir)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"listen address {address}" in done.stderr
    assert "--listen" in done.stderr
