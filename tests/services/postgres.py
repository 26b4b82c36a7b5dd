"""PostgreSQL: one real server in a temporary folder. `python tests/services/postgres.py --port 15432` runs it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg

from tests.services.process import Process, ServiceError, free_port, require, wait_for_interrupt

#: Debian keeps the server's programs off PATH.
DEBIAN_FOLDERS = tuple(f"/usr/lib/postgresql/{major}/bin" for major in (17, 16, 15, 14))
PACKAGE = "postgresql"


class Postgres:
    """One server on 127.0.0.1 whose superuser `postgres` needs no password. Use as a context manager."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="govern-postgres-"))
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self._data = self.folder / "data"
        self._process = Process(
            [
                require("postgres", package=PACKAGE, folders=DEBIAN_FOLDERS),
                *("-D", str(self._data)),
                *("-c", f"port={self.port}"),
                *("-c", "listen_addresses=127.0.0.1"),
                *("-c", f"unix_socket_directories={self.folder}"),
                *("-c", "max_connections=200"),
                # A test kills processes, never the machine: what the kernel holds is safe without fsync.
                *("-c", "fsync=off"),
            ],
            log=self.folder / "postgres.log",
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast shutdown": SIGTERM would wait until every client has left
        )

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        try:
            self._initdb()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        self._process.start(lambda log: "ready to accept connections" in log)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        """kill -9; the data stays."""
        self._process.kill()

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port and data."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new, empty database, dropped afterwards; its SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _initdb(self) -> None:
        initdb = require("initdb", package=PACKAGE, folders=DEBIAN_FOLDERS)
        as_user = ["runuser", "-u", self._user, "--"] if self._user else []
        command = [*as_user, initdb, "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        done = subprocess.run([*command, "--locale=C.UTF-8"], capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise ServiceError(f"initdb failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=15_432)
    with Postgres(parser.parse_args().port) as postgres:
        print(f"{postgres.url()} (log: {postgres.folder / 'postgres.log'}; Ctrl-C ends it)", flush=True)
        wait_for_interrupt()


if __name__ == "__main__":
    main()
