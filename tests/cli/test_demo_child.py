from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from govern.cli.demo import child
from govern.cli.demo.child import Child, ChildFailed, Program, tail
from govern.cli.demo.ports import free_ports

DEADLINE_S = 60.0


def _program(code: str, ready: Path) -> Program:
    async def look() -> bool:
        return ready.exists()

    return Program("thing", [sys.executable, "-c", code], look, dict(os.environ))


def _server(ready: Path) -> Program:
    """Announces its pid, and ends on SIGTERM as a good server does."""
    return _program(
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('up', os.getpid(), flush=True)\n"
        f"pathlib.Path({str(ready)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n",
        ready,
    )


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    one = Child(_server(ready), tmp_path / "log")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(one.keep())
        await one.ready.wait()
        first = one.pid
        assert first is not None
        ready.unlink()
        os.kill(first, signal.SIGKILL)
        while one.restarts == 0:
            await asyncio.sleep(0.01)
        await one.ready.wait()
        second = one.pid
        await one.stop()

    assert second is not None
    assert second != first
    assert one.pid is None
    assert _gone(second)
    assert (tmp_path / "log").read_text().split() == ["up", str(first), "up", str(second)]


async def test_a_program_that_cannot_start_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    one = Child(_program("raise SystemExit('port 80 is taken')", tmp_path / "never"), tmp_path / "log")

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ChildFailed, match="thing ended with code 1") as error:
            await one.keep()

    assert "port 80 is taken" in error.value.why
    assert str(tmp_path / "log") in error.value.fix
    assert one.restarts == child.MAX_FAILED_STARTS - 1


async def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "READY_DEADLINE_S", 0.3)
    one = Child(
        _program("print('hello', flush=True)\nimport time; time.sleep(600)", tmp_path / "never"), tmp_path / "log"
    )

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ChildFailed, match="not ready"):
            await one.keep()

    assert one.pid is None


async def test_a_program_that_does_not_end_when_asked_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "STOP_DEADLINE_S", 0.3)
    ready = tmp_path / "ready"
    deaf = _program(
        "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)",
        ready,
    )
    one = Child(deaf, tmp_path / "log")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(one.keep())
        await one.ready.wait()
        await one.stop()

    assert one.pid is None


async def test_stopping_between_two_lives_starts_no_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "BACKOFF_S", (60.0, 60.0))
    ready = tmp_path / "ready"
    one = Child(_server(ready), tmp_path / "log")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(one.keep())
        await one.ready.wait()
        pid = one.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while one.pid is not None:
            await asyncio.sleep(0.01)
        await one.stop()

    assert one.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    leash = Path(child.__file__).parent / "leash.py"
    child_code = (
        f"import os, pathlib, time\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    parent_code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-IS', sys.argv[2], str(os.getpid()), sys.executable, '-c', sys.argv[1]])\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code, child_code, str(leash)])
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pid = int(pid_file.read_text())
    finally:
        parent.kill()
        parent.wait()

    while not _gone(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == "(it wrote nothing)"
    log.write_text("".join(f"line {n}\n" for n in range(100)))

    assert tail(log, 2) == "line 98\nline 99"


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(8)

    assert len(set(ports)) == 8
    assert all(20_000 <= port < 32_000 for port in ports)
