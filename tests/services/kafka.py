"""Apache Kafka: one real KRaft broker, its jars from Maven Central. `python tests/services/kafka.py` runs it."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.services.process import Process, ServiceError, free_port, require, wait_for_interrupt

CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
POM = Path(__file__).with_name("pom.xml")

#: C1 only and the serial collector: a test's broker lives for seconds, and starts twice as fast this way.
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=INFO")

SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""


class Kafka:
    """One broker on 127.0.0.1. Use as a context manager.

    Args:
        listeners: further ones, each named by its protocol, as in SASL_SSL://127.0.0.1:9094.
        settings: further lines of server.properties.
        scram: credentials to begin with, as StorageTool takes them.
    """

    def __init__(
        self, port: int | None = None, *, listeners: Sequence[str] = (), settings: str = "", scram: str = ""
    ) -> None:
        self._listeners = "".join(f",{each}" for each in listeners)
        self._further = settings
        self._scram = ["--add-scram", scram] if scram else []
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="govern-kafka-"))
        self._java = require("java", package="default-jre-headless")
        self._settings = self.folder / "server.properties"
        self._process = Process(
            [self._java, *JVM, "-cp", f"{jars()}/*", "kafka.Kafka", str(self._settings)],
            log=self.folder / "kafka.log",
        )

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self._format()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        self._process.start(lambda log: "Kafka Server started" in log)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        """kill -9; the data stays."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP; connections stay open, and nobody answers."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port and data."""
        self.stop()
        self.start()

    def _format(self) -> None:
        settings = SETTINGS.format(
            port=self.port, controller_port=free_port(), listeners=self._listeners, data=self.folder / "data"
        )
        self._settings.write_text(settings + self._further)
        tool = [self._java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*", "kafka.tools.StorageTool"]
        cluster_id = uuid.uuid4().hex[:22]
        run(
            [*tool, "format", "--standalone", "--cluster-id", cluster_id, "--config", str(self._settings), *self._scram]
        )


def jars() -> Path:
    """The folder with the broker's jars; fetched once, and again when the POM changes.

    Parallel callers wait for each other; a download that is cut off leaves nothing that could be taken for whole.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    libs = CACHE / "libs"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetched_with = libs / POM.name
        if not fetched_with.exists() or fetched_with.read_bytes() != POM.read_bytes():
            fetching = CACHE / "fetching"
            for stale in (fetching, libs):
                shutil.rmtree(stale, ignore_errors=True)
            mvn = require("mvn", package="maven")
            run([mvn, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fetching}"])
            shutil.copy(POM, fetching)
            fetching.rename(libs)
    return libs


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        raise ServiceError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=19_092)
    with Kafka(parser.parse_args().port) as kafka:
        print(f"{kafka.url} (log: {kafka.folder / 'kafka.log'}; Ctrl-C ends it)", flush=True)
        wait_for_interrupt()


if __name__ == "__main__":
    main()
