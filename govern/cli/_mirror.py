"""What the commands of `govern mirror` share: the options of the configuration, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from govern.mirror.config import MirrorConfig, load_with_sources
from govern.mirror.effective import as_yaml

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; its fields: govern mirror schema")
]
PrintConfigOption = Annotated[
    bool,
    typer.Option("--print-config", help="Print the configuration in force and where each value is from, and end."),
]


def configured(path: Path | None, *, show: bool, flags: Mapping[str, object]) -> MirrorConfig:
    """The configuration of a command; with `show` it is printed, and the command ends.

    Args:
        flags: values by dotted name; None stands for a flag that was not given.
    """
    loaded = load_with_sources(path, flags=flags)
    if show:
        typer.echo(as_yaml(loaded), nl=False)
        raise typer.Exit
    return loaded.config
