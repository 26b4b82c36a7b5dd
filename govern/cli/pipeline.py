"""`govern pipeline`: check pipeline files, draw them, and import other systems' manifests."""

from __future__ import annotations

import typer

from govern.cli.pipeline_check import check
from govern.cli.pipeline_import import import_
from govern.cli.pipeline_show import show

app = typer.Typer(no_args_is_help=True)
app.command()(check)
app.command()(show)
app.command("import")(import_)
