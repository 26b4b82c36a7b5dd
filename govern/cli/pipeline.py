"""`govern pipeline`: check, draw and import pipeline files, and keep the fleet."""

from __future__ import annotations

import typer

from govern.cli.pipeline_apply import apply
from govern.cli.pipeline_check import check
from govern.cli.pipeline_delete import delete
from govern.cli.pipeline_get import get
from govern.cli.pipeline_import import import_
from govern.cli.pipeline_ls import ls
from govern.cli.pipeline_show import show

app = typer.Typer(no_args_is_help=True)
app.command()(check)
app.command()(show)
app.command("import")(import_)
app.command()(apply)
app.command()(ls)
app.command()(get)
app.command()(delete)
