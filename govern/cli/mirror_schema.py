"""`govern mirror schema`: the JSON schema of the configuration file."""

from __future__ import annotations

import json

import typer

from govern.mirror.config import json_schema


def schema() -> None:
    """Print the JSON schema of the configuration file, for editors and CI."""
    typer.echo(json.dumps(json_schema(), indent=2))
