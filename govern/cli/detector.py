"""`govern detector`: detectors that were not fitted here."""

from __future__ import annotations

import typer

from govern.cli.detector_adopt import adopt

app = typer.Typer(no_args_is_help=True)
app.command()(adopt)


@app.callback()
def group() -> None:
    """Take over detectors that were not fitted here."""
