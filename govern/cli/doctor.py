"""`govern doctor`: what is installed, what is missing, and under which licence."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from detectors.alibi.host import interpreter
from govern import __version__, plugins
from govern.bus import open_bus
from govern.cli._common import run
from govern.errors import GovernError

#: extra -> the packages it brings.
EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "mirror": ("httptools", "uvloop"),
    "serve": ("grpcio", "grpcio-health-checking", "grpcio-reflection"),
    "explain": ("shap",),
    "audit": ("sqlalchemy", "alembic", "psycopg", "cryptography", "rfc8785", "pyjwt"),
    "alibi": ("alibi", "alibi-detect"),
}
#: Packages that are not open source.
BSL: Final = ("alibi", "alibi-detect")


def doctor(
    bus: Annotated[str | None, typer.Option(envvar="GOVERN_BUS", help="Also try to reach this bus.")] = None,
) -> None:
    """Say what is installed, what is missing, under which licence, and whether the bus answers."""
    console = Console()
    console.print(f"govern {__version__}, Python {platform.python_version()}, numpy {version('numpy')}")
    table = Table("extra", "package", "version", "note")
    for extra, packages in EXTRAS.items():
        for package in packages:
            found = _version(package)
            note = (
                "Business Source License 1.1: no commercial production use without a licence" if package in BSL else ""
            )
            missing = f"[yellow]pip install 'govern\\[{extra}]'[/]"
            table.add_row(extra, package, found or "[yellow]absent[/]", note if found else missing)
    console.print(table)
    for group in (plugins.DETECTORS, plugins.EXPLAINERS):
        for name in plugins.names(group):
            try:
                plugins.load(group, name)
                if name.startswith("alibi_detect."):
                    interpreter()
            except GovernError as error:
                console.print(f"{group}: {name}: [yellow]unavailable[/]: {error.fix}", highlight=False)
            else:
                console.print(f"{group}: {name}: ready", highlight=False)
    console.print(f"spool memory (/dev/shm): {_free(Path('/dev/shm'))}")  # noqa: S108 - read only
    if bus:

        async def reach() -> None:
            async with open_bus(bus, client_id="govern-doctor"):
                console.print(f"bus {bus}: [green]answers[/]")

        run(reach())


def _free(folder: Path) -> str:
    if not folder.is_dir():
        return "none; the spool uses the temporary folder"
    return f"{shutil.disk_usage(folder).free >> 20} MiB free"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
