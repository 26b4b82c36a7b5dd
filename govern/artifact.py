"""Artifact folders: what a fitted detector or explainer is on disk. JSON, npz and skops; never pickle.

An artifact is a folder with `artifact.json` (the manifest: format version, which class, parameters, schema, and
the SHA-256 of every other file) beside its data files. Reading checks all of it before any data file is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from govern.errors import ArtifactError

FORMAT_VERSION: Final = 1
MANIFEST: Final = "artifact.json"
#: Beside the manifest, in an artifact that was signed: a note (https://c2sp.org/signed-note) with `statement` as its
#: text. It is no data file: no manifest names it. Whoever writes the artifact anew takes it away.
SIGNATURE: Final = "artifact.sig"
#: What `Manifest.lineage` may hold, each of it optional; what else stands there is kept and not understood.
LINEAGE: Final = {
    "version": "counts up from 1 with each refit of the same artifact",
    "parent": "digest of the artifact that it replaces",
    "source": "what the reference was read from: path and sha256 of a file, topic with offsets, SQL query",
    "rows": "of the reference",
    "times": "first and last t_response of the reference, RFC 3339",
    "excluded": "ranges of time left out, RFC 3339 intervals",
    "seed": "of the fit",
    "fitted_at": "RFC 3339",
    "fitted_by": "person or service",
}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `artifact.json`.

    Attributes:
        format_version: of this layout, kept apart from the package's version.
        group: the entry point group, `govern.detectors` or `govern.explainers`.
        name: the entry point that reads it.
        state_version: of the data files of that class.
        params: constructor parameters, JSON values.
        schema: the feature schema, as built-in values.
        reference_digest: `Frame.digest` of what it was fitted on.
        files: file name, or path below the folder with "/" -> SHA-256, hex.
        lineage: where it comes from (see `LINEAGE`), as far as that was recorded.
    """

    format_version: int
    group: str
    name: str
    state_version: int
    params: dict[str, Any]
    schema: dict[str, Any]
    reference_digest: str
    files: dict[str, str]
    extra: dict[str, Any] = {}
    lineage: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the manifest without its lineage; it covers every data file through `files`.

        A fit with the same rows and seed gives the same digest whoever runs it and when, which lineage tells.
        """
        state = msgspec.structs.replace(self, lineage=msgspec.UNSET)
        return hashlib.sha256(msgspec.json.encode(state, order="deterministic")).hexdigest()


def seal(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """The manifest with the digests of these files, as `write` stores it: its digest is the artifact's."""
    return msgspec.structs.replace(
        manifest, files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    )


def write(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write an artifact folder, whole or not at all, and return the manifest with the files' digests.

    An artifact already at `path` is replaced.
    """
    sealed = seal(manifest, files)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        for name, data in files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(data)
        (scratch / MANIFEST).write_text(
            json.dumps(msgspec.to_builtins(sealed), indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        scratch.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(scratch, path)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise _unwritable(path, error) from error
    return sealed


def statement(path: Path) -> str:
    """What a signature is of: the SHA-256 of the manifest as it is on disk, which covers lineage and data files.

    Raises:
        ArtifactError: there is no manifest.
    """
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return f"govern.io/artifact\nsha256 {hashlib.sha256(data).hexdigest()}\n"


def record_lineage(path: Path, lineage: Mapping[str, Any], *, group: str) -> Manifest:
    """Say in the manifest of a saved artifact where it comes from; its digest stays, and a signature goes.

    Args:
        lineage: JSON values; replaces what the manifest says.

    Raises:
        ArtifactError: as `read` and `write`.
    """
    manifest, files = read(path, group=group)
    return write(path, msgspec.structs.replace(manifest, lineage=dict(lineage)), files)


def _unreadable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"artifact {path} cannot be read", why=str(error), fix="fit it with `govern fit`, or correct the path"
    )


def _unwritable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"artifact {path} cannot be written", why=str(error), fix="free space or choose another folder"
    )


def read(path: Path, *, group: str) -> tuple[Manifest, dict[str, bytes]]:
    """Read and check an artifact folder.

    Raises:
        ArtifactError: no such folder, not an artifact of this group, another format version, a missing or
            additional file, or a file whose digest differs from the manifest's.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        raw = json.loads(text)
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"artifact {path}: format_version is {version!r}",
                why=f"this release of govern reads version {FORMAT_VERSION}",
                fix="fit it again with this release",
            )
        manifest = msgspec.convert(raw, Manifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise ArtifactError(
            f"artifact {path}: {MANIFEST} is damaged", why=str(error), fix="fit it again with `govern fit`"
        ) from error
    if manifest.group != group:
        raise ArtifactError(
            f"artifact {path} belongs to {manifest.group}",
            why=f"one of {group} is needed here",
            fix="name the right artifact",
        )
    found = {entry.relative_to(path).as_posix() for entry in path.rglob("*") if not entry.is_dir()}
    found -= {MANIFEST, SIGNATURE}
    if found != set(manifest.files):
        raise ArtifactError(
            f"artifact {path}: files differ from the manifest: {sorted(found ^ set(manifest.files))}",
            why="a file is missing or was added after fitting",
            fix="restore the folder or fit it again",
        )
    files = {name: (path / name).read_bytes() for name in manifest.files}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        if digest != manifest.files[name]:
            raise ArtifactError(
                f"artifact {path}: {name} has the wrong digest",
                why=f"the manifest says sha256 {manifest.files[name]}, the file has {digest}",
                fix="the file was changed after fitting: restore it, or fit the artifact again",
            )
    return manifest, files
