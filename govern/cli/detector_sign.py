"""`govern detector sign`: say with a key that an artifact is to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from govern import artifact, plugins
from govern.cli._files import write_whole
from govern.errors import MissingExtra


def sign(
    paths: Annotated[list[Path], typer.Argument(help="Folders of artifacts.")],
    keys: Annotated[
        Path, typer.Option("--keys", envvar="GOVERN_SIGNING_KEYS", help="Key folder, of `govern audit keygen`.")
    ],
) -> None:
    """Sign artifacts with the Ed25519 key of a folder, each in a file beside its manifest; a signature is replaced.

    What is signed is the manifest, with its lineage and the digest of every data file.
    """
    try:
        from audit.keys import load_signer
    except ModuleNotFoundError as error:
        raise MissingExtra("audit", needed_by="govern detector sign") from error
    signer = load_signer(keys)
    for path in paths:
        manifest, _ = artifact.read(path, group=plugins.DETECTORS)
        write_whole(path / artifact.SIGNATURE, [signer.sign(artifact.statement(path)).encode()])
        typer.echo(f"{path} signed by {signer.name}; sha256 {manifest.digest}")
