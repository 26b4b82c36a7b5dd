"""`govern mirror unseal`: open what redaction encrypted, where the private key is."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from govern.codecs import sealed
from govern.errors import BadInput


def unseal(
    key: Annotated[Path, typer.Option("--key", help="X25519 private key in PEM, the other half of seal_to.")],
    inference_id: Annotated[str, typer.Option("--id", help="The inference's id, as its record names it.")],
    side: Annotated[Literal["request", "response"], typer.Option("--side", help="Whose payload it is.")] = "request",
) -> None:
    """Read a payload's `sealed` in base64 from standard input; write the values as JSON, by redaction."""
    try:
        box = base64.b64decode("".join(sys.stdin.read().split()), validate=True)
    except binascii.Error as error:
        raise BadInput("standard input", why="it is no base64", fix="give the record's `sealed`") from error
    try:
        pem = key.read_bytes()
    except OSError as error:
        raise BadInput(
            f"--key {key}", why=f"it cannot be read: {error.strerror}", fix="name an existing file"
        ) from error
    values = sealed.unseal(box, sealed.private_key(pem, origin=f"--key {key}"), inference_id=inference_id, side=side)
    typer.echo(msgspec.json.encode(values))
