"""Whose artifacts are used: those that carry the signature of a trusted key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from govern import artifact, plugins
from govern.cli._files import read_text
from govern.errors import ArtifactError, GovernError, MissingExtra
from govern.runtime.loader import Check

if TYPE_CHECKING:
    from audit.checkpoint import VerifierKey

TrustedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-artifacts-signed-by",
        envvar="GOVERN_TRUSTED_KEYS",
        help="Verifier key, or a file with it: use no artifact that none of these keys has signed.",
    ),
]


def trusting(keys: Sequence[str]) -> Check | None:
    """The check that an artifact is signed by one of these keys; None when there are none.

    Raises:
        BadInput: one is no verifier key.
        MissingExtra: signatures cannot be verified without the [audit] extra.
    """
    parsed = [verifier_key(key) for key in keys]
    return (lambda path: signed(path, parsed)) if parsed else None


def verifier_key(text: str) -> VerifierKey:
    """The key that a text is, or that stands in the file that it names.

    Raises:
        BadInput: there is none.
        MissingExtra: the [audit] extra is absent.
    """
    try:
        from audit.checkpoint import VerifierKey
    except ModuleNotFoundError as error:
        raise MissingExtra("audit", needed_by="the signature of an artifact") from error
    path = Path(text)
    return VerifierKey.parse(read_text(path) if path.is_file() else text)


def signed(path: Path, keys: Sequence[VerifierKey]) -> artifact.Manifest:
    """The manifest of an artifact whose files are all as one of these keys has signed them.

    Raises:
        ArtifactError: it has no signature, none of these keys', or was changed since.
    """
    from audit.checkpoint import open_note

    try:
        note = read_text(path / artifact.SIGNATURE)
    except GovernError as error:
        raise ArtifactError(
            f"artifact {path} is not signed",
            why=f"it has no readable {artifact.SIGNATURE}",
            fix="look at where it comes from, and sign it: govern detector sign PATH --keys FOLDER",
        ) from error
    refused: list[GovernError] = []
    for key in keys:
        try:
            text = open_note(note, key)
        except GovernError as error:
            refused.append(error)
            continue
        if text != artifact.statement(path):
            raise ArtifactError(
                f"artifact {path}: its signature is of another manifest",
                why=f"{key.name} signed one whose {artifact.MANIFEST} has other bytes: it was changed, or fitted again",
                fix="restore it, or look at where it comes from and sign it again",
            )
        # The bytes that were signed name the digest of every other file.
        manifest, _ = artifact.read(path, group=plugins.DETECTORS)
        if text != artifact.statement(path):
            raise ArtifactError(
                f"artifact {path} was changed while it was read", why="its manifest is another now", fix="try again"
            )
        return manifest
    raise ArtifactError(
        f"artifact {path} is not signed by a trusted key",
        why="; ".join(f"{one.what}: {one.why}" for one in refused),
        fix="sign it with a trusted key, or trust the one that signed it (--trust-artifacts-signed-by)",
    )
