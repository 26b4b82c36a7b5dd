"""The configuration: where values come from, and what a wrong one says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig, json_schema, load, load_with_sources
from govern.mirror.effective import as_yaml
from govern.mirror.loading import Loaded, read

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "capture").glob("*.md"))


class Tls(BaseModel):
    """A section within a section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_file: Path | None = Field(default=None, description="The private key.")
    password: SecretStr = Field(default=SecretStr(""), description="What the key is encrypted with.")


class Sink(BaseModel):
    """A section as the ways in have them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    join_s: float = Field(default=30.0, gt=0, description="How long halves wait for each other.")
    keep_s: float = Field(default=60.0, gt=0, description="How long joined ids are known.")
    paths: tuple[str, ...] = Field(default=("/",), description="Paths of the sink.")
    tls: Tls | None = Field(default=None, description="TLS, if any.")

    @model_validator(mode="after")
    def _keeps_longer(self) -> Sink:
        if self.keep_s < self.join_s:
            raise ValueError("keep_s: give at least join_s")
        return self


class Config(BaseModel):
    """A configuration with sections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", description="A name.")
    sink: Sink = Field(default=Sink(), description="The sink.")
    sinks: tuple[Sink, ...] = Field(default=(), description="More sinks.")


def read_sections(
    path: Path | None, environ: dict[str, str] | None = None, flags: dict[str, object] | None = None
) -> Loaded[Config]:
    return read(Config, path, flags=flags or {}, environ=environ or {}, prefix="GOVERN_MIRROR_", shared={})


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
        ("upstream: ftp://a\n", "upstream", "http://host:port"),
        ("upstream: http://a:b\n", "upstream", "Port"),
        ("namespace: a.b\n", "namespace", "pattern"),
        ("endpoint: blue\n", "endpoint", "canary"),
        ("nonsense: 1\n", "mirror.yaml:1: nonsense", "not permitted"),
        ("rules: [{path: '('}]\n", "rules", "no regular expression"),
        ("body_bytes: 600000\n", "mirror.yaml:1: body_bytes", "message_bytes"),
        ("segment_bytes: 4096\n", "segment_bytes", "one record may need"),
        ("fan_out: [{topic: govern.bank.positions}]\n", "fan_out.0.topic", "positions is a topic of govern's own"),
        ("fan_out: [{topic: ..}]\n", "fan_out.0.topic", "no topic of that name"),
        ("fan_out: [{}]\n", "fan_out.0.topic", "either a topic or a namespace"),
        ("fan_out:\n- namespace: default\n", "mirror.yaml:1: fan_out", "twice"),
        ("spool_bytes: 4194304\n", "spool_bytes", "four segments"),
    ],
)
def test_a_wrong_value_names_its_place_and_the_way_out(tmp_path: Path, text: str, names: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environ={})
    assert names in caught.value.what
    assert why in caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("text", ["a: [", "- a\n", "just text", "\x00", "a: &a [*a]\n", "&a {a: *a}\n"])
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


def test_a_sections_fields_come_from_every_source(tmp_path: Path) -> None:
    path = write(tmp_path, "sink:\n  join_s: 5\n  keep_s: 6\n  paths: [/a]\n")
    loaded = read_sections(
        path,
        {
            "GOVERN_MIRROR_SINK_KEEP_S": "70",
            "GOVERN_MIRROR_SINK_TLS_KEY_FILE": "/k",
            "GOVERN_MIRROR_SINK_PATHS": "/b, /c",
        },
        {"sink.join_s": 7, "sink.keep_s": None},
    )
    sink = loaded.config.sink
    assert (sink.join_s, sink.keep_s, sink.paths) == (7, 70, ("/b", "/c"))
    assert sink.tls is not None
    assert sink.tls.key_file == Path("/k")
    assert loaded.sources["sink.join_s"] == "--sink-join-s"
    assert loaded.sources["sink"] == f"{path}:1: sink"
    whole = read_sections(None, {"GOVERN_MIRROR_SINK": "{join_s: 1}", "GOVERN_MIRROR_SINKS": "[{join_s: 2}]"})
    assert (whole.config.sink.join_s, whole.config.sinks[0].join_s) == (1, 2)


@pytest.mark.parametrize(
    ("text", "what", "why", "fix"),
    [
        ("name: a\nsink:\n  join_s: soon\n", "mirror.yaml:3: sink.join_s", "valid number", "How long halves wait"),
        ("sink:\n  join: 1\n", "mirror.yaml:2: sink.join", "not permitted", "use one of: join_s, keep_s, paths, tls"),
        ("sink:\n  keep_s: 1\n", "mirror.yaml:2: sink.keep_s", "give at least join_s", "How long joined ids"),
        ("sink:\n  tls:\n    key_file: []\n", "mirror.yaml:3: sink.tls.key_file", "path", "The private key"),
        ("sinks:\n- join_s: 1\n- join_s: 0\n", "mirror.yaml:3: sinks.1.join_s", "greater than 0", "How long halves"),
        ("sink: 5\n", "mirror.yaml:1: sink", "Sink", "The sink."),
    ],
)
def test_a_wrong_value_in_a_section_names_its_line(tmp_path: Path, text: str, what: str, why: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sections(write(tmp_path, text), {"GOVERN_MIRROR_SINK_PATHS": "/a"} if "sink: 5" in text else None)
    assert caught.value.what.endswith(what)
    assert why in caught.value.why
    assert caught.value.fix.startswith(fix)


def test_a_wrong_variable_and_flag_of_a_section_are_named() -> None:
    with pytest.raises(ConfigError, match="environment variable GOVERN_MIRROR_SINK_JOIN_S"):
        read_sections(None, {"GOVERN_MIRROR_SINK_JOIN_S": "-1"})
    with pytest.raises(ConfigError, match="--sink-join-s"):
        read_sections(None, flags={"sink.join_s": -1})


def test_the_printed_configuration_is_one_that_load_takes_back(tmp_path: Path) -> None:
    path = write(tmp_path, "service: 'a: #b'\nrules: [{path: '/x\\d'}]\nheaders: []\n")
    loaded = load_with_sources(path, flags={"pod": "two\nlines"}, environ={"GOVERN_NAMESPACE": "n"})
    printed = as_yaml(loaded)
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    assert load(again, environ={}) == loaded.config
    assert f"service: 'a: #b'  # {path}:1\n" in printed
    assert "namespace: n  # environment variable GOVERN_NAMESPACE\n" in printed
    assert "drain_s: 20.0  # default\n" in printed
    assert "  # --pod\n" in printed


def test_what_is_printed_masks_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, "sink:\n  tls:\n    password: opensesame\n")
    printed = as_yaml(read_sections(path))
    assert "opensesame" not in printed
    assert f"    password: '**********'  # {path}:3\n" in printed


def test_the_published_schema_is_current_and_takes_what_load_takes() -> None:
    published = json.loads((ROOT / "docs" / "capture" / "mirror.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(), "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(published)
    with pytest.raises(jsonschema.ValidationError, match="sampling"):
        jsonschema.validate({"sampling_ratio": 1}, published)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_on_the_pages_is_valid(page: Path, tmp_path: Path) -> None:
    """A YAML block of docs/capture whose first line is `# mirror.yaml`."""
    for block in re.findall(r"^```yaml\n(# mirror\.yaml\n.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        jsonschema.validate(yaml.safe_load(block) or {}, json_schema())
        load(write(tmp_path, block), environ={})
