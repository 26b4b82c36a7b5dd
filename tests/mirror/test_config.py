"""The configuration: where values come from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig, load


def write(folder: Path, text: str) -> Path:
    path = folder / "mirror.yaml"
    path.write_text(text)
    return path


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "service: from-file\nnamespace: from-file\nmodel: from-file\nsampling_rate: 0.5\n")
    environ = {"GOVERN_NAMESPACE": "from-env", "GOVERN_MIRROR_SERVICE": "from-env", "GOVERN_BUS": "kafka://k:9092"}
    config = load(path, flags={"service": "from-flag", "namespace": None}, environ=environ)
    assert (config.service, config.namespace, config.model) == ("from-flag", "from-env", "from-file")
    assert (config.bus, config.sampling_rate) == ("kafka://k:9092", 0.5)


def test_lists_and_rules_come_from_every_source(tmp_path: Path) -> None:
    path = write(tmp_path, "rules:\n  - path: /score\n    protocol: mine\nrequest_id_headers: [X-One]\n")
    assert load(path, environ={}).rules[0].path == "/score"
    assert load(path, environ={}).request_id_headers == ("x-one",)
    environ = {
        "GOVERN_MIRROR_REQUEST_ID_HEADERS": "X-Two, x-three",
        "GOVERN_MIRROR_RULES": "[{path: /other}]",
    }
    config = load(path, environ=environ)
    assert config.request_id_headers == ("x-two", "x-three")
    assert config.rules[0].path == "/other"


def test_every_field_is_documented_and_the_defaults_are_valid() -> None:
    assert [name for name, field in MirrorConfig.model_fields.items() if not field.description] == []
    assert load(environ={}).body_bytes == 448 * 1024


@pytest.mark.parametrize(
    ("text", "names", "why"),
    [
        ("sampling_rate: 1.5\n", "mirror.yaml:1: sampling_rate", "less than or equal to 1"),
        ("service: a\nlisten: nowhere\n", "mirror.yaml:2: listen", "host:port"),
        ("listen: 0.0.0.0:70000\n", "listen", "65535"),
        ("upstream: https://a\n", "upstream", "http://host:port"),
        ("upstream: http://a:b\n", "upstream", "Port"),
        ("namespace: a.b\n", "namespace", "pattern"),
        ("endpoint: blue\n", "endpoint", "canary"),
        ("nonsense: 1\n", "mirror.yaml:1: nonsense", "not permitted"),
        ("rules: [{path: '('}]\n", "rules", "no regular expression"),
        ("body_bytes: 600000\n", "mirror.yaml:1: body_bytes", "message_bytes"),
        ("segment_bytes: 4096\n", "segment_bytes", "one record may need"),
        ("spool_bytes: 4194304\n", "spool_bytes", "four segments"),
    ],
)
def test_a_wrong_value_names_its_place_and_the_way_out(tmp_path: Path, text: str, names: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environ={})
    assert names in caught.value.what
    assert why in caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("text", ["a: [", "- a\n", "just text", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mirror\.yaml"):
        load(write(tmp_path, text), environ={})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        load(tmp_path / "absent.yaml", environ={})


def test_the_source_of_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match="environment variable GOVERN_MIRROR_DRAIN_S"):
        load(environ={"GOVERN_MIRROR_DRAIN_S": "soon"})
    with pytest.raises(ConfigError, match="--sampling-rate"):
        load(flags={"sampling_rate": -1}, environ={})
