"""Brokers that ask who one is: TLS with a client's certificate, SASL with and without TLS; what is wrong is named."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from govern.bus import Partition, TopicSpec, open_bus
from govern.bus.kafka import KafkaBus
from govern.bus.kafka_access import KafkaAccess
from govern.bus.protocol import BusError
from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig
from tests.bus.helpers import out, take, values
from tests.mirror.authority import Authority
from tests.mirror.conftest import govern
from tests.mirror.seldon.conftest import installation, recorded_within
from tests.services.kafka import Kafka
from tests.services.process import Process, free_port

JAAS = "org.apache.kafka.common.security"


class Guarded(NamedTuple):
    """A broker's further listeners by protocol, and the files that open them."""

    ports: dict[str, int]
    folder: Path

    def url(self, how: str) -> str:
        ca, ours = f"ca={self.folder}/authority.pem", f"cert={self.folder}/client.crt&key={self.folder}/client.key"
        user = f"user=govern&password_file={self.folder}/password"
        protocol, query = {
            "certificate": ("SSL", f"tls=true&{ca}&{ours}"),
            "no certificate": ("SSL", f"tls=true&{ca}"),
            "another authority": ("SSL", f"tls=true&{ours}"),
            "scram": ("SASL_PLAINTEXT", f"sasl=SCRAM-SHA-256&{user}"),
            "plain over tls": ("SASL_SSL", f"tls=true&{ca}&sasl=PLAIN&{user}"),
            "wrong password": ("SASL_PLAINTEXT", f"sasl=SCRAM-SHA-256&{user}-wrong"),
        }[how]
        return f"kafka://127.0.0.1:{self.ports[protocol]}?{query}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder, "authority")
    authority.issue("govern", file="client")
    server = authority.issue("127.0.0.1", file="server")
    (folder / "server.pem").write_bytes(server.key.read_bytes() + server.cert.read_bytes())
    (folder / "password").write_text("the-word\n")
    (folder / "password-wrong").write_text("another\n")
    ports = {protocol: free_port() for protocol in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
    settings = f"""\
listener.name.ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={authority.file}
listener.name.sasl_plaintext.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={JAAS}.scram.ScramLoginModule required;
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={JAAS}.plain.PlainLoginModule required user_govern="the-word";
"""
    listeners = [f"{protocol}://127.0.0.1:{port}" for protocol, port in ports.items()]
    with Kafka(listeners=listeners, settings=settings, scram="SCRAM-SHA-256=[name=govern,password=the-word]"):
        yield Guarded(ports, folder)


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["certificate", "scram", "plain over tls"])
async def test_all_that_a_bus_does_goes_through(guarded: Guarded, unique: str, how: str) -> None:
    async with open_bus(guarded.url(how)) as bus:
        await bus.ensure_topics([TopicSpec(name=unique)])
        await bus.publish(unique, [out("1")])
        transactor = await bus.transactor(unique)
        async with transactor.transaction() as transaction:
            await transaction.publish(unique, [out("2")])
        subscription = await bus.subscribe([unique], unique)
        assert values(await take(subscription, 2)) == ["1", "2"]
        assert values(await bus.read(Partition(unique, 0), 0)) == ["1", "2"]


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["no certificate", "another authority", "wrong password"])
async def test_who_is_not_known_does_not_get_in(guarded: Guarded, how: str) -> None:
    host, query = guarded.url(how).removeprefix("kafka://").split("?")
    with pytest.raises(BusError, match=host):
        async with KafkaBus(host, access=KafkaAccess.of_query(query), timeout_s=10.0):
            pass


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["certificate", "scram", "plain over tls"])
async def test_seldons_topics_are_read_there_too(guarded: Guarded, unique: str, tmp_path: Path, how: str) -> None:
    config = seldon_config(guarded.url(how), tmp_path, unique)
    async with installation(config.seldon.bus, unique) as seldon:
        await seldon.make("model.income.inputs", "model.income.outputs")
        await seldon.call(1)
        process = Process(seldon_topics(tmp_path), log=tmp_path / "log")
        process.start(lambda log: "recording" in log)
        try:
            (record,) = await recorded_within(config, 1)
        finally:
            process.stop()
    assert (record.request_id, record.missing) == ("r1", ())


def test_a_wrong_url_of_seldons_kafka_is_refused(tmp_path: Path, unique: str) -> None:
    seldon_config("kafka://a:1?tsl=true", tmp_path, unique)
    done = subprocess.run(seldon_topics(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "seldon.bus, tsl" in done.stderr


def seldon_config(url: str, folder: Path, namespace: str) -> MirrorConfig:
    """A reader of Seldon's topics that lie behind a URL, onto a bus that needs no broker; also as a file."""
    values = {"bus": f"embedded://{folder}/bus.db", "namespace": namespace, "seldon": {"bus": url}}
    (folder / "mirror.yaml").write_text(json.dumps(values))
    return MirrorConfig.model_validate(values)


def seldon_topics(folder: Path) -> list[str]:
    return govern("mirror", "seldon-topics", "--config", f"{folder}/mirror.yaml", "--metrics-listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("kafka://a:1?tsl=true", "tsl"),
        ("kafka://a:1?tls=yes", "tls"),
        ("kafka://a:1?ca=/x", "tls"),
        ("kafka://a:1?tls=true&cert=/x", "cert"),
        ("kafka://a:1?sasl=GSSAPI&user=a&password_file=/x", "sasl"),
        ("kafka://a:1?sasl=PLAIN&user=a", "sasl"),
        ("kafka://me:secret@a:1", "bus URL"),
    ],
)
def test_a_wrong_url_names_its_part_and_repeats_no_password(url: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        open_bus(url)
    assert "secret" not in str(caught.value)


async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password") as caught:
        async with open_bus(f"kafka://a:1?sasl=PLAIN&user=a&password_file={tmp_path}/none"):
            pass
    assert f"{tmp_path}/none" in caught.value.why
