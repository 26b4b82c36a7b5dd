"""The section `redaction`: what is refused, and with which words."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig, load
from govern.mirror.effective import as_yaml
from govern.mirror.loading import read
from govern.mirror.redaction.config import RedactionConfig
from govern.mirror.redaction.keys import read_keys
from govern.mirror.redaction.path import parse_path
from govern.mirror.redaction.redactor import Redactor
from govern.schema import Feature, FeatureSchema

SCHEMA = FeatureSchema(format_version=1, model="m", features=(Feature(name="age", kind="numeric", pii=True),))


def written(tmp_path: Path, **section: object) -> Path:
    path = tmp_path / "mirror.yaml"
    path.write_text(yaml.safe_dump({"service": "income", "redaction": section}, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"rules": [{"path": "a..b", "action": "drop"}]}, "no path from character 1 on"),
        ({"rules": [{"path": "a.**", "action": "drop"}]}, "names no field"),
        ({"rules": [{"path": "**.a.**.b", "action": "drop"}]}, "more than one"),
        ({"rules": [{"path": "a", "tensor": "b", "action": "drop"}]}, "exclude each other"),
        ({"rules": [{"action": "hash"}]}, "hash needs a place"),
        ({"rules": [{"column": -1, "action": "drop"}]}, "position from 0"),
        ({"rules": [{"path": "a", "action": "shred"}]}, "'drop', 'hash', 'tokenise', 'encrypt' or 'withhold'"),
        ({"rules": [{"class": "secret", "action": "drop"}]}, "'pii' or 'protected'"),
        ({"rules": [{"class": "pii", "action": "drop"}]}, "set schema_file"),
        ({"rules": [{"path": "a", "action": "encrypt"}]}, "set seal_to"),
        ({"rules": [{"path": "a", "action": "drop", "sides": "both"}]}, "Extra inputs"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(tmp_path: Path, section: dict[str, object], words: str) -> None:
    path = written(tmp_path, **section)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert f"{path}:" in caught.value.what
    assert "redaction" in caught.value.what
    assert words in caught.value.why


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"rules": [{"path": "a", "action": "hash"}]}, "is not set"),
        ({"rules": [{"path": "a", "action": "drop"}], "key_file": "/nowhere"}, "FileNotFoundError"),
        ({"rules": [{"class": "pii", "action": "drop"}], "schema_file": "/nowhere"}, "No such file"),
        ({"rules": [{"path": "a", "action": "encrypt"}], "seal_to": "/nowhere"}, "No such file"),
    ],
)
def test_what_the_rules_need_must_be_there(
    section: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOVERN_REDACTION_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
        Redactor(RedactionConfig.model_validate(section), body_bytes=1)
    assert "redaction." in caught.value.what
    assert words in caught.value.why


def test_a_class_that_no_feature_is_of_is_refused(tmp_path: Path) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA.to_yaml())
    section = {"rules": [{"class": "protected", "action": "drop"}], "schema_file": schema}
    with pytest.raises(ConfigError, match="class protected"):
        Redactor(RedactionConfig.model_validate(section), body_bytes=1)


def test_a_key_file_is_read_and_goes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(base64.b64encode(bytes(32)).decode() + "\n")
    rules = [{"path": "a", "action": "hash"}]
    of_file = read_keys(RedactionConfig.model_validate({"rules": rules, "key_file": file}), {})
    environ = {"GOVERN_REDACTION_KEY": base64.b64encode(bytes(range(32))).decode()}
    of_environment = read_keys(RedactionConfig.model_validate({"rules": rules}), environ)
    assert of_file is not None
    assert of_environment is not None
    assert of_file.hash("a") != of_environment.hash("a")
    assert read_keys(RedactionConfig(), {}) is None


def test_what_is_printed_can_be_read_again(tmp_path: Path) -> None:
    rules = [{"path": "**.ssn", "action": "drop"}, {"class": "pii", "action": "drop", "side": "both"}]
    path = written(tmp_path, rules=rules, schema_file="schema.yaml")
    shown = tmp_path / "shown.yaml"
    loaded = read(MirrorConfig, path, flags={}, environ={}, prefix="GOVERN_MIRROR_", shared={})
    shown.write_text(as_yaml(loaded))
    assert load(shown, environ={}) == loaded.config


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a.b[0].c", ("a", "b", "0", "c")),
        ("$.a", ("a",)),
        ("a[*]", ("a", "*")),
        ("a.*.b", ("a", "*", "b")),
        ("**.a", ("**", "a")),
        ("""a["b.c"]['d[e']""", ("a", "b.c", "d[e")),
    ],
)
def test_paths(text: str, steps: tuple[str, ...]) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize("text", ["", "$", ".", ".a", "a.", "a[", "a[x]", "a]b", "**"])
def test_no_paths(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|field"):
        parse_path(text)
