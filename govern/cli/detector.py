"""`govern detector`: take over, sign and verify artifacts of detectors."""

from __future__ import annotations

import typer

from govern.cli.detector_adopt import adopt
from govern.cli.detector_sign import sign
from govern.cli.detector_verify import verify

app = typer.Typer(no_args_is_help=True)
app.command()(adopt)
app.command()(sign)
app.command()(verify)


@app.callback()
def group() -> None:
    """Take over detectors that alibi-detect saved; sign artifacts, and verify their signatures."""
