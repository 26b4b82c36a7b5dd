"""`govern mirror spool ls|verify` and the refusals of `govern mirror ship`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from govern.cli.mirror import app
from govern.cli.mirror_spool import described
from govern.mirror.config import MirrorConfig, json_schema
from govern.mirror.inspect import inspect_segments
from govern.mirror.recorder import open_recorder
from govern.mirror.shipper import Drained
from tests.mirror.conftest import govern, segment_files, until
from tests.mirror.test_recorder import play
from tests.mirror.test_shipper import on_the_bus, running
from tests.services.process import free_port

PAGES = Path(__file__).parents[2] / "docs" / "capture"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(govern("mirror", *arguments), capture_output=True, text=True, timeout=240)


def test_ls_and_verify_show_a_spool_in_use(make_config: Callable[..., MirrorConfig], spool_dir: Path) -> None:
    recorder = open_recorder(make_config())
    for _ in range(12):
        play(recorder)
    shown = run("spool", "ls", "--spool-dir", str(spool_dir))
    assert shown.returncode == 0, shown.stderr
    assert "12" in shown.stdout
    checked = run("spool", "verify", "--spool-dir", str(spool_dir))
    assert checked.stdout == "12 records are whole, 0 places are damaged\n"
    recorder.close()

    segment = segment_files(spool_dir)[0]
    data = bytearray(segment.read_bytes())
    data[300] ^= 1
    segment.write_bytes(data)
    checked = run("spool", "verify", "--spool-dir", str(spool_dir))
    assert checked.returncode == 1
    assert checked.stdout == "11 records are whole, 1 places are damaged\n"
    assert f"{segment}: bytes 256 to" in checked.stderr


async def test_drain_publishes_what_a_dead_pod_left_on_its_disk_and_says_so(
    make_config: Callable[..., MirrorConfig], spool_dir: Path, embedded_url: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    config = make_config(bus=embedded_url)
    recorder = open_recorder(config)
    for _ in range(30):
        until(lambda: recorder.spool.ahead > 0, "the next segment")
        play(recorder, body=b"x" * 3000)
    recorder.close()
    first, *rest = segment_files(spool_dir)
    shutil.move(first, disk / first.name)
    shutil.rmtree(spool_dir)  # the memory went with the pod, and what was in it
    assert rest
    n_left = 0
    for segment in inspect_segments([disk]):
        n_left += segment.verify().n_records
    options = ["--spool-dir", str(spool_dir), "--disk-dir", str(disk)]
    assert f"{disk} holds " in run("spool", "ls", *options).stdout
    away = run("spool", "drain", *options, "--bus", f"kafka://127.0.0.1:{free_port()}", "--drain-s", "0.5")
    assert away.returncode == 1
    assert away.stdout == f"0 records are on the bus now, {n_left} wait in the spool, 0 could not be read\n"
    drained = run("spool", "drain", *options, "--bus", embedded_url)
    assert drained.returncode == 0, drained.stderr
    assert drained.stdout == f"{n_left} records are on the bus now, 0 wait in the spool, 0 could not be read\n"
    assert [record.capture.seq for _, record in await on_the_bus(config)] == list(range(n_left))
    assert list(disk.iterdir()) == []
    assert not spool_dir.exists()
    assert described(Drained(1204, 0, 0, 0)) in (PAGES / "delivery.md").read_text(encoding="utf-8")
    again = run("spool", "drain", *options, "--bus", embedded_url)
    assert again.stdout == "0 records are on the bus now, 0 wait in the spool, 0 could not be read\n"


async def test_drain_beside_an_agent_that_writes_ends_without_waiting_for_it(
    make_config: Callable[..., MirrorConfig], spool_dir: Path, embedded_url: str
) -> None:
    config = make_config(bus=embedded_url)
    recorder = open_recorder(config)
    for expected in ("3", "4"):
        for _ in range(int(expected)):
            play(recorder)
        drained = run("spool", "drain", "--spool-dir", str(spool_dir), "--bus", embedded_url)
        assert drained.stdout.startswith(f"{expected} records are on the bus now, 0 wait"), drained.stderr
        assert drained.stdout.endswith("1 agents are still writing\n")
    recorder.close()
    assert [record.capture.seq for _, record in await on_the_bus(config)] == list(range(7))


async def test_drain_is_refused_while_a_shipper_works_on_either_folder(
    make_config: Callable[..., MirrorConfig], spool_dir: Path, embedded_url: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with running(make_config(bus=embedded_url), tmp_path / "shipper.log", disk_dir=disk):
        for folder in (spool_dir, tmp_path / "another"):
            options = ["--spool-dir", str(folder), "--disk-dir", str(disk), "--bus", embedded_url]
            refused = run("spool", "drain", *options)
            assert refused.returncode == 1
            assert "another shipper works on it" in refused.stderr


def test_ship_without_a_bus_and_with_a_wrong_one_says_what_to_set(spool_dir: Path) -> None:
    missing = run("ship", "--spool-dir", str(spool_dir))
    assert missing.returncode == 2
    assert "GOVERN_BUS" in missing.stderr
    wrong = run("ship", "--spool-dir", str(spool_dir), "--bus", "mqtt://x", "--metrics-listen", "127.0.0.1:0")
    assert wrong.returncode == 2
    assert "kafka://host:port" in wrong.stderr


def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mirror.yaml"
    path.write_text("service: a\nsampling_rate: 7\n")
    refused = run("proxy", "--config", str(path))
    assert refused.returncode == 2
    page = (PAGES / "configuration.md").read_text(encoding="utf-8")
    assert refused.stderr.replace(str(path), "mirror.yaml") in page


def test_every_command_prints_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mirror.yaml"
    path.write_text("service: mine\n")

    def commands(group: TyperGroup, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from commands(command, (*above, name))
            elif any(each.name == "config" for each in command.params):  # the others read no configuration
                needed = [each for each in command.params if each.required and each.param_type_name == "argument"]
                yield (*above, name, *("sagemaker" if each.name == "source" else "x" for each in needed))

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = list(commands(group))
    assert ("spool", "ls") in found
    for command in found:
        shown = CliRunner().invoke(app, [*command, "--config", str(path), "--print-config"])
        assert shown.exit_code == 0, (command, shown.output)
        assert f"service: mine  # {path}:1\n" in shown.stdout


def test_the_schema_is_printed() -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == json_schema()
