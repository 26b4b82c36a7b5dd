"""`govern detector sign` and `verify`, and a worker that runs what was signed and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from audit.keys import load_or_create
from detectors import artifacts
from detectors.drift.ks import KSDrift
from detectors.outlier.mahalanobis import MahalanobisOutlier
from govern import artifact, plugins
from govern.cli._artifacts import trusting
from govern.cli.main import main
from govern.errors import ArtifactError
from govern.frame import Frame
from govern.runtime.flow.sources import sources
from govern.runtime.loader import load
from govern.runtime.serving.repository import Repository
from govern.schema import Feature, FeatureSchema

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: people}
spec:
  source: {service: income, model: income}
  schema: schema.yaml
  steps:
    - {name: drift, detector: {type: ks, artifact: drift}, batch: {size: 100}}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(*words)`: exit status, stdout, stderr."""

    def one(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["govern", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a pipeline and its artifact, `drift`; beside it the keys `mine` and `others`."""
    schema = FeatureSchema(format_version=1, model="income", features=(Feature(name="pay", kind="numeric"),))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    (tmp_path / "people.yaml").write_text(PIPELINE)
    artifacts.save(KSDrift().fit(_reference(schema, 0)), tmp_path / "drift")
    artifact.record_lineage(tmp_path / "drift", {"version": 1, "fitted_by": "jane"}, group=plugins.DETECTORS)
    for name in ("mine", "others"):
        load_or_create(tmp_path / name, f"{name}.example/models")
    return tmp_path


def _reference(schema: FeatureSchema, seed: int) -> Frame:
    return Frame(schema, (np.random.default_rng(seed).normal(size=100),))


def key_of(folder: Path, name: str = "mine") -> str:
    return (folder / name / "verifier-key.txt").read_text().strip()


def test_what_was_signed_is_verified_and_tells_where_it_comes_from(run: Run, folder: Path) -> None:
    before = artifacts.load(folder / "drift").digest
    status, shown, _ = run("detector", "sign", folder / "drift", "--keys", folder / "mine")
    assert (status, shown) == (0, f"{folder / 'drift'} signed by mine.example/models; sha256 {before}\n")
    for key in (key_of(folder), folder / "mine" / "verifier-key.txt"):
        status, shown, _ = run("detector", "verify", folder / "drift", "--key", key_of(folder, "others"), "--key", key)
        told = json.loads(shown)
        assert (status, told["digest"], told["name"]) == (0, before, "ks")
        assert told["lineage"] == {"version": 1, "fitted_by": "jane"}
    assert artifacts.load(folder / "drift").digest == before, "a signature is no part of what was fitted"


def test_a_worker_refuses_what_no_trusted_key_signed(run: Run, folder: Path, embedded_url: str) -> None:
    words = ("worker", folder / "people.yaml", "--bus", embedded_url, "--trust-artifacts-signed-by", key_of(folder))
    status, _, told = run(*words)
    assert status != 0
    assert "is not signed" in told
    assert "govern detector sign" in told
    run("detector", "sign", folder / "drift", "--keys", folder / "others")
    status, _, told = run(*words)
    assert status != 0
    assert "is not signed by a trusted key" in told
    run("detector", "sign", folder / "drift", "--keys", folder / "mine")
    (loaded,) = load(folder / "people.yaml", check=trusting([key_of(folder)]))
    assert loaded.detectors["drift"].digest == artifacts.load(folder / "drift").digest
    assert load(folder / "people.yaml"), "a worker that trusts whoever writes there reads it as before"


@pytest.mark.parametrize("command", ["serve", "replay"])
def test_serve_and_replay_refuse_it_too(run: Run, folder: Path, embedded_url: str, command: str) -> None:
    words = (command, folder / "people.yaml", "--bus", embedded_url, "--trust-artifacts-signed-by", key_of(folder))
    run("detector", "sign", folder / "drift", "--keys", folder / "others")
    status, _, told = run(*words)
    assert status != 0
    assert "is not signed by a trusted key" in told


async def test_a_server_reads_nothing_anew_that_no_trusted_key_signed(run: Run, folder: Path) -> None:
    """Also not the artifact of a pipeline that is called."""
    called = PIPELINE.replace("{service: income, model: income}", "null").replace("name: people", "name: called")
    called = called.replace("ks, artifact: drift}, batch: {size: 100}", "mahalanobis, artifact: strange}")
    (folder / "people.yaml").write_text(f"{PIPELINE}---{called}  output: {{steps: [drift]}}\n")
    schema = FeatureSchema.load(folder / "schema.yaml")
    pay = np.random.default_rng(0).normal(size=400)
    artifacts.save(MahalanobisOutlier().fit(Frame(schema, (pay,))), folder / "strange")
    artifact.record_lineage(folder / "strange", {"fitted_by": "jane"}, group=plugins.DETECTORS)
    for name in ("drift", "strange"):
        run("detector", "sign", folder / name, "--keys", folder / "mine")
    async with AsyncExitStack() as stack:
        _, found = sources(folder / "people.yaml", stack, check=trusting([key_of(folder)]))
        repository = Repository(found)
        assert set(repository) == {"people-drift", "called"}
        for model, artifact_ in (("people-drift", "drift"), ("called", "strange")):
            before = repository[model]
            _edit_lineage(folder / artifact_)
            with pytest.raises(ArtifactError, match="signature is of another manifest"):
                repository.load(model)
            assert repository[model] is before
            run("detector", "sign", folder / artifact_, "--keys", folder / "mine")
            repository.load(model)
            assert repository[model] is not before


def _edit_lineage(path: Path) -> None:
    manifest = json.loads((path / artifact.MANIFEST).read_text())
    manifest["lineage"]["fitted_by"] = "joan"
    (path / artifact.MANIFEST).write_text(json.dumps(manifest))


def _edit_data(path: Path) -> None:
    data = bytearray((path / "arrays.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "arrays.npz").write_bytes(data)


def _add_a_file(path: Path) -> None:
    (path / "more.npz").write_bytes(b"")


def _swap_for_another(path: Path) -> None:
    """Another detector, whole in itself, under the old signature."""
    signature = (path / artifact.SIGNATURE).read_bytes()
    artifacts.save(KSDrift().fit(_reference(artifacts.load(path).schema, 1)), path)
    (path / artifact.SIGNATURE).write_bytes(signature)


def _edit_signature(path: Path) -> None:
    text = (path / artifact.SIGNATURE).read_text()
    (path / artifact.SIGNATURE).write_text(text.replace("sha256 ", "sha256 0", 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_edit_lineage, "its signature is of another manifest"),
        (_edit_data, "wrong digest"),
        (_add_a_file, "files differ from the manifest"),
        (_swap_for_another, "its signature is of another manifest"),
        (_edit_signature, "does not fit the text"),
    ],
)
def test_what_was_changed_since_is_refused(
    run: Run, folder: Path, change: Callable[[Path], None], message: str
) -> None:
    run("detector", "sign", folder / "drift", "--keys", folder / "mine")
    check = trusting([key_of(folder)])
    assert check is not None
    check(folder / "drift")
    change(folder / "drift")
    with pytest.raises(ArtifactError, match=message):
        check(folder / "drift")


def test_whoever_writes_an_artifact_anew_takes_its_signature_away(run: Run, folder: Path) -> None:
    run("detector", "sign", folder / "drift", "--keys", folder / "mine")
    artifact.record_lineage(folder / "drift", {"version": 2}, group=plugins.DETECTORS)
    assert not (folder / "drift" / artifact.SIGNATURE).exists()
    status, _, told = run("detector", "verify", folder / "drift", "--key", key_of(folder))
    assert status != 0
    assert "is not signed" in told


def test_a_signature_travels_with_the_pipelines_of_a_fleet(run: Run, folder: Path, embedded_url: str) -> None:
    bus = ("--bus", embedded_url)
    assert run("topics", "create", *bus)[0] == 0
    assert run("pipeline", "apply", folder / "people.yaml", *bus) == (0, "people created\n", "")
    run("detector", "sign", folder / "drift", "--keys", folder / "mine")
    assert run("pipeline", "apply", folder / "people.yaml", *bus) == (0, "people changed\n", "")
    assert run("pipeline", "get", "people", "--to", folder / "back", *bus)[0] == 0
    (signature,) = (folder / "back").rglob(artifact.SIGNATURE)
    assert run("detector", "verify", signature.parent, "--key", key_of(folder))[0] == 0
