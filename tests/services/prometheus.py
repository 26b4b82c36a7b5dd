"""Prometheus: one real server over a given configuration. `python tests/services/prometheus.py FILE` runs it."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.services.process import Process, free_port, listening, require, wait_for_interrupt

PACKAGE = "prometheus"
#: A scrape interval of a test's configuration is about 1 s; a shared machine may be slow.
QUERY_DEADLINE_S = 60.0


def promtool() -> str:
    """The path of `promtool`, which checks rules and configurations."""
    return require("promtool", package=PACKAGE)


class Prometheus:
    """One server on 127.0.0.1. Use as a context manager.

    Args:
        config: the text of prometheus.yml. Its relative `rule_files` name entries of `files`.
        files: further files to lay beside it, name -> text.
    """

    def __init__(self, config: str, *, files: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="govern-prometheus-"))
        for name, text in {"prometheus.yml": config, **(files or {})}.items():
            (self.folder / name).write_text(text)
        self._process = Process(
            [
                require("prometheus", package=PACKAGE),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
            ],
            log=self.folder / "prometheus.log",
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self._process.start(lambda log: "Server is ready to receive web requests" in log and listening(self.port))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of the answer of an API path such as `/api/v1/rules`."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=QUERY_DEADLINE_S) as answer:
            return json.load(answer)["data"]

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The instant vector of an expression, now: `[{"metric": {...}, "value": [t, "1"]}, ...]`."""
        result: list[dict[str, Any]] = self.get("/api/v1/query", query=promql)["result"]
        return result

    def _found(self, promql: str) -> list[dict[str, Any]]:
        """As `query`; nothing when the server takes too long."""
        try:
            return self.query(promql)
        except TimeoutError:
            return []

    def wait_for(self, promql: str, *, deadline_s: float = QUERY_DEADLINE_S) -> list[dict[str, Any]]:
        """The instant vector as soon as it is not empty."""
        deadline = time.monotonic() + deadline_s
        while not (result := self._found(promql)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{promql} is still empty after {deadline_s:.0f} s")
            time.sleep(0.2)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, default=19_090)
    arguments = parser.parse_args()
    with Prometheus(arguments.config.read_text(), port=arguments.port) as prometheus:
        print(f"{prometheus.url} (Ctrl-C ends it)", flush=True)
        wait_for_interrupt()


if __name__ == "__main__":
    main()
