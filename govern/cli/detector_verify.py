"""`govern detector verify`: whether an artifact is as a key signed it, and where it says that it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from govern.cli._artifacts import signed, verifier_key


def verify(
    paths: Annotated[list[Path], typer.Argument(help="Folders of artifacts.")],
    key: Annotated[list[str], typer.Option("--key", help="Verifier key, or a file with it; any of several.")],
) -> None:
    """Verify the signatures of artifacts and the digest of every file; print what each is, and its lineage, as JSON."""
    keys = [verifier_key(one) for one in key]
    for path in paths:
        manifest = signed(path, keys)
        shown = {
            "path": str(path),
            "name": manifest.name,
            "digest": manifest.digest,
            "reference_digest": manifest.reference_digest,
            "lineage": {} if manifest.lineage is msgspec.UNSET else manifest.lineage,
        }
        typer.echo(json.dumps(shown, sort_keys=True))
