"""From a pipeline on disk to what the topic holds of it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from govern import artifact, plugins
from govern.artifact import MANIFEST, SIGNATURE
from govern.errors import ConfigError
from govern.runtime.fleet.entry import FORMAT_VERSION, Content, Entry
from govern.runtime.loader import Documented

#: The largest pipeline of a fleet: it is published in one transaction, which a broker ends after a minute, and each of
#: its files is held in memory on the way to a worker's disk.
PIPELINE_BYTES_MAX: Final = 64 * 1024 * 1024
#: A folder to lie in, for each level that the paths in a document go up.
_LEVEL: Final = "_"


@dataclass(frozen=True, slots=True)
class Packed:
    """A pipeline that was checked, ready to be applied; its entry says neither when nor by whom yet."""

    entry: Entry
    contents: dict[Content, bytes]


def pack(one: Documented) -> Packed:
    """Read all files of a pipeline.

    Raises:
        ConfigError: it names a file by an absolute path, or is larger than a fleet's pipeline may be.
        ArtifactError: an artifact was changed meanwhile.
    """
    document, pipeline, folder = one.document, one.pipeline, one.document.file.parent
    schema_path = pipeline.spec.schema_path
    assert schema_path is not None, "what a worker runs was checked to have a schema"
    artifacts = [step.detector.artifact for step in pipeline.spec.steps if step.detector is not None]
    for path in (schema_path, *artifacts):
        if posixpath.isabs(path):
            raise ConfigError(
                f"pipeline {pipeline.name!r} names {path}",
                why="a worker that follows the fleet keeps the pipeline's files in a folder of its own",
                fix=f"write the path relative to {document.file}",
            )
    levels = max(posixpath.normpath(path).split("/").count("..") for path in (schema_path, *artifacts))
    root = f"{_LEVEL}/" * levels
    found = {root + document.file.name: document.text.encode()}
    found[posixpath.normpath(root + schema_path)] = (folder / schema_path).read_bytes()
    for path in artifacts:
        _, files = artifact.read(folder / path, group=plugins.DETECTORS)
        files[MANIFEST] = (folder / path / MANIFEST).read_bytes()
        if (folder / path / SIGNATURE).exists():
            files[SIGNATURE] = (folder / path / SIGNATURE).read_bytes()
        found |= {posixpath.normpath(f"{root}{path}/{name}"): data for name, data in files.items()}
    contents = {Content.of(data): data for data in found.values()}
    entry = Entry(
        format_version=FORMAT_VERSION,
        name=pipeline.name,
        digest=one.digest,
        service=pipeline.spec.source.service if pipeline.spec.source is not None else "",
        model=pipeline.model,
        document=root + document.file.name,
        files={path: Content.of(data) for path, data in sorted(found.items())},
        t_applied=0,
        actor="",
        parts=tuple(part.plan.name for part in one.parts if part.plan.name != pipeline.name),
    )
    _check_size(entry, document.file)
    return Packed(entry, contents)


def _check_size(entry: Entry, file: Path) -> None:
    if entry.size > PIPELINE_BYTES_MAX:
        largest = max(entry.files, key=lambda path: entry.files[path].size)
        raise ConfigError(
            f"{file}: pipeline {entry.name!r} is {entry.size:,} bytes with its artifacts",
            why=f"a fleet's pipeline may have {PIPELINE_BYTES_MAX:,}; the largest file is {largest}",
            fix="fit on fewer reference rows, or give the file to a worker itself: govern worker FILE",
        )
