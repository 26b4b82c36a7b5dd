"""`govern mirror spool ls|verify` and the refusals of `govern mirror ship`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from govern.cli.mirror import app
from govern.mirror.config import MirrorConfig, json_schema
from govern.mirror.recorder import open_recorder
from tests.mirror.conftest import govern, segment_files
from tests.mirror.test_recorder import play


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(govern("mirror", *arguments), capture_output=True, text=True, timeout=60)


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
    page = Path(__file__).parents[2] / "docs" / "capture" / "configuration.md"
    assert refused.stderr.replace(str(path), "mirror.yaml") in page.read_text(encoding="utf-8")


def test_every_command_prints_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mirror.yaml"
    path.write_text("service: mine\n")

    def commands(group: TyperGroup, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from commands(command, (*above, name))
            elif name != "schema":  # it reads no configuration
                needed = [each for each in command.params if each.required]
                yield (*above, name, *("x" for each in needed if each.param_type_name == "argument"))

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
