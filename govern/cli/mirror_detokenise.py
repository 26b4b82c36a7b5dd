"""`govern mirror detokenise`: the values behind tokens, for who has the key."""

from __future__ import annotations

import sys

import msgspec
import typer

from govern.cli._mirror import ConfigOption, PrintConfigOption, configured
from govern.errors import ConfigError
from govern.mirror.redaction.keys import read_keys


def detokenise(config: ConfigOption = None, print_config: PrintConfigOption = False) -> None:
    """Read tokens from standard input, one a line; write their values as JSON, one a line."""
    keys = read_keys(configured(config, show=print_config, flags={}).redaction)
    if keys is None:
        raise ConfigError(
            "redaction",
            why="there is no key to open tokens with",
            fix="name the capture's key: redaction.key_file, or the environment variable GOVERN_REDACTION_KEY",
        )
    for line in sys.stdin:
        if line.strip():
            typer.echo(msgspec.json.encode(keys.value_of(line.strip())))
