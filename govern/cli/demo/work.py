"""The work folder: what the demo writes, and where."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from govern.errors import BadInput, Unavailable

#: What the demo's own folders are called when none is named.
PREFIX: Final = "govern-demo-"


@dataclass(frozen=True, slots=True)
class Work:
    """Paths below one folder, which is empty when the demo begins."""

    folder: Path

    @classmethod
    def open(cls, folder: Path | None) -> Work:
        """Use this folder, or make one below the system's temporary folder.

        Raises:
            BadInput: it holds files already, of an earlier run perhaps.
            Unavailable: it cannot be made.
        """
        try:
            if folder is None:
                return cls(Path(tempfile.mkdtemp(prefix=PREFIX)))
            folder = folder.resolve()
            folder.mkdir(parents=True, exist_ok=True)
            used = any(folder.iterdir())
        except OSError as error:
            raise Unavailable(
                f"work folder {folder}", why=str(error), fix="name a folder that can be made and written (--work)"
            ) from error
        if used:
            raise BadInput(
                f"work folder {folder} is not empty",
                why="the demo would mix its records with what lies there",
                fix="name another folder (--work), or remove what is in it",
            )
        return cls(folder)

    @property
    def reference(self) -> Path:
        return self.folder / "reference.parquet"

    @property
    def schema(self) -> Path:
        return self.folder / "schema.yaml"

    @property
    def pipeline(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def model(self) -> Path:
        return self.folder / "model.skops"

    @property
    def explainers(self) -> Path:
        return self.folder / "explainers"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def bus_url(self) -> str:
        """Of the bus in one file, used unless another is named."""
        return f"embedded://{self.folder / 'bus.db'}"

    @property
    def database_url(self) -> str:
        """Of the audit database in one file, used unless another is named."""
        return f"sqlite:///{self.folder / 'audit.db'}"
