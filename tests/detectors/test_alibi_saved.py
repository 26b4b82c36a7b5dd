"""Detectors that alibi-detect saved, adopted as they are: the same verdicts, and nothing of them in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import artifacts
from detectors.alibi import saved
from detectors.alibi.child import wire
from detectors.alibi.host import Host
from govern.detection import StatefulDetector, WindowScores
from govern.errors import ArtifactError, BadInput, MissingExtra, Unavailable
from govern.frame import Frame
from tests.detectors.conftest import MakeTable

cd = pytest.importorskip("alibi_detect.cd", reason="the extra [alibi] is not installed", exc_type=ImportError)
saving = pytest.importorskip("alibi_detect.saving", reason="the extra [alibi] is not installed", exc_type=ImportError)

pytestmark = pytest.mark.alibi

DEADLINE_S = 60.0
SEED = 7


def matrix(frame: Frame) -> np.ndarray:
    return np.column_stack([column.astype(np.float64) for column in frame.columns])


def kept(detector: Any, folder: Path) -> Path:
    saving.save_detector(detector, folder)
    return folder


@pytest.fixture(scope="module")
def reference(make_table: MakeTable) -> Frame:
    return make_table(200, seed=1)


@pytest.fixture(scope="module")
def window(make_table: MakeTable) -> Frame:
    return make_table(60, seed=2, shift=0.6)


@pytest.fixture(scope="module")
def binary(make_table: MakeTable) -> Callable[..., Frame]:
    """Columns of zeros and ones."""

    def make(rows: int, seed: int, share: float) -> Frame:
        frame = make_table(rows, seed=seed, numeric=2, categorical=0)
        drawn = np.random.default_rng(seed).random((rows, 2)) < share
        return Frame(schema=frame.schema, columns=(drawn[:, 0].astype(np.float64), drawn[:, 1].astype(np.float64)))

    return make


@pytest.fixture(scope="module")
def ks(reference: Frame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept(cd.KSDrift(matrix(reference), p_val=0.05), tmp_path_factory.mktemp("ks"))


def through(step: Callable[[np.ndarray], np.ndarray], reference: Frame, folder: Path) -> Path:
    """A saved detector that hands every window through a function, which is pickled with it."""
    return kept(cd.KSDrift(matrix(reference), p_val=0.05, preprocess_fn=step), folder)


@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
@pytest.mark.parametrize("name", ["KSDrift", "CVMDrift", "TabularDrift", "ChiSquareDrift"])
def test_same_verdict_as_alibi_detect(name: str, correction: str, make_table, tmp_path: Path) -> None:
    # Of values that are equal, alibi-detect's CVM makes an alarm whatever they are.
    kinds = {"numeric": 5, "categorical": 0} if name == "CVMDrift" else {}
    reference = make_table(200, seed=1, **kinds)
    rows = matrix(reference)
    categories: dict[str, Any] = {"TabularDrift": {"categories_per_feature": {3: 5, 4: 5}}}.get(name, {})
    directly = getattr(cd, name)(rows, p_val=0.1, correction=correction, **categories)
    saved.adopt(kept(directly, tmp_path / "saved"), reference.schema, min_instances=2).save(tmp_path / "a")
    adopted = artifacts.load(tmp_path / "a")
    alarms = set()
    for seed in range(10):
        window = make_table(20 + 7 * seed, seed=100 + seed, shift=0.3 * (seed % 3), **kinds)
        found, said = adopted.score(window), directly.predict(matrix(window))["data"]
        assert isinstance(found, WindowScores)
        assert [one.feature for one in found.features] == list(reference.schema.names)
        assert [one.p_value for one in found.features] == pytest.approx(said["p_val"].tolist(), abs=1e-6)
        assert [one.statistic for one in found.features] == pytest.approx(said["distance"].tolist(), abs=1e-6)
        assert (found.alarm, found.correction) == (bool(said["is_drift"]), correction)
        alarms.add(found.alarm)
    assert len(alarms) == 2 or name == "ChiSquareDrift", "a stream that always says the same shows little"


def test_same_verdict_of_fishers_test(binary, tmp_path: Path) -> None:
    directly = cd.FETDrift(matrix(binary(200, 1, 0.3)), p_val=0.05, alternative="greater")
    adopted = saved.adopt(kept(directly, tmp_path / "saved"), binary(1, 0, 0.5).schema)
    for seed in range(5):
        window = binary(50, 10 + seed, 0.3 + 0.05 * seed)
        found, said = adopted.score(window), directly.predict(matrix(window))["data"]
        assert isinstance(found, WindowScores)
        assert [one.p_value for one in found.features] == pytest.approx(said["p_val"].tolist(), abs=1e-6)
        assert found.alarm == bool(said["is_drift"])


def test_a_joint_test_draws_the_same_numbers_for_the_same_window(reference: Frame, window: Frame, tmp_path) -> None:
    from sklearn.linear_model import LogisticRegression

    directly = cd.ClassifierDrift(matrix(reference), LogisticRegression(), backend="sklearn", n_folds=3, p_val=0.05)
    adopted = saved.adopt(kept(directly, tmp_path / "saved"), reference.schema, seed=SEED)
    found, again = adopted.score(window), adopted.score(window)
    assert isinstance(found, WindowScores)
    said = directly.predict(matrix(window))["data"]
    assert (found.alarm, found.features) == (bool(said["is_drift"]), ())
    assert (found.statistic, found.p_value) == pytest.approx((said["distance"], said["p_val"]), abs=1e-6)
    assert again == found


@pytest.mark.parametrize("name", ["CVMDriftOnline", "FETDriftOnline"])
def test_an_online_detector_goes_on_where_the_window_before_ended(
    name: str, binary, make_table, tmp_path: Path
) -> None:
    def rows(count: int, seed: int, moved: float) -> Frame:
        if name == "FETDriftOnline":
            return binary(count, seed, 0.3 + 0.3 * moved)
        return make_table(count, seed=seed, numeric=2, categorical=0, shift=moved)

    options = {"ert": 50, "window_sizes": [5, 10], "n_bootstraps": 300, "verbose": False}
    np.random.seed(SEED)  # with few streams to simulate, alibi-detect finds no thresholds for some seeds
    directly = getattr(cd, name)(matrix(rows(60, 1, 0.0)), **options)
    kept(directly, tmp_path / "saved")
    np.random.seed(SEED)
    directly = saving.load_detector(tmp_path / "saved")
    saved.adopt(tmp_path / "saved", rows(1, 0, 0.0).schema, seed=SEED).save(tmp_path / "a")
    adopted = artifacts.load(tmp_path / "a")
    assert isinstance(adopted, StatefulDetector)

    stream = Frame.concat([rows(60, 2, 0.0), rows(60, 3, 1.5)])
    memory, alarms, sizes = adopted.start(), [], []
    for start in range(0, 120, 20):
        if start == 60:  # it may be asked anywhere: the process holds nothing that the memory lacks
            adopted._child.close()
            memory = adopted.unpack(adopted.pack(memory))
        window = stream.take(slice(start, start + 20))
        found, memory = adopted.advance(memory, window, np.zeros(20, dtype=np.int64))
        assert isinstance(found, WindowScores)
        drawn = [directly.predict(row)["data"] for row in matrix(window)]
        # Of equal statistic and threshold, Fisher's detector throws a die.
        told = next((one for one in drawn if one["is_drift"]), drawn[-1])
        with np.errstate(invalid="ignore"):
            expected = np.nanmax(np.asarray(told["test_stat"]), axis=0)
        if name == "CVMDriftOnline":
            assert found.alarm == any(one["is_drift"] for one in drawn)
            assert [one.statistic for one in found.features] == pytest.approx(expected.tolist(), abs=1e-6)
            assert [one.threshold for one in found.features] == pytest.approx([told["threshold"].item()] * 2, abs=1e-6)
        alarms.append(found.alarm)
        sizes.append(len(adopted.pack(memory)))
    assert alarms[-1]
    assert not alarms[0]
    assert sizes[-1] == sizes[1], "what it remembers does not grow with the stream"
    begun = adopted.advance(adopted.start(), stream.take(slice(0, 20)), np.zeros(20, dtype=np.int64))[0]
    assert repr(adopted.score(stream.take(slice(0, 20)))) == repr(begun), "NaN is the p-value of both"


def test_a_changed_file_is_refused_before_anything_opens_it(ks: Path, reference: Frame, tmp_path: Path) -> None:
    saved.adopt(ks, reference.schema).save(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a" / "saved").iterdir()) == ["config.toml", "x_ref.npy"]
    config = tmp_path / "a" / "saved" / "config.toml"
    config.write_text(config.read_text().replace("0.05", "0.90"))
    with pytest.raises(ArtifactError, match=r"saved/config\.toml has the wrong digest"):
        artifacts.load(tmp_path / "a")


def test_an_added_file_is_refused(ks: Path, reference: Frame, tmp_path: Path) -> None:
    saved.adopt(ks, reference.schema).save(tmp_path / "a")
    (tmp_path / "a" / "saved" / "state").mkdir()
    (tmp_path / "a" / "saved" / "state" / "state.npz").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"files differ from the manifest: \['saved/state/state.npz'\]"):
        artifacts.load(tmp_path / "a")


def test_what_was_checked_is_what_is_opened(ks: Path, reference: Frame, window: Frame, tmp_path: Path) -> None:
    saved.adopt(ks, reference.schema).save(tmp_path / "a")
    adopted = artifacts.load(tmp_path / "a")
    for path in (tmp_path / "a" / "saved").iterdir():
        path.write_bytes(b"another detector")
    assert adopted.score(window) == saved.adopt(ks, reference.schema).score(window)


PARENT = """
import os, sys
from pathlib import Path
from detectors import artifacts
from detectors.alibi import saved
from govern.schema import FeatureSchema
import numpy as np
from govern.frame import Frame

folder = Path(sys.argv[1])
schema = FeatureSchema.load(folder / "schema.yaml")
saved.adopt(folder / "saved", schema).save(folder / "a")
rng = np.random.default_rng(0)
print(artifacts.load(folder / "a").score(Frame(schema, tuple(rng.normal(size=(5, 40))))).alarm)
print(os.getpid())
print(*sorted(name for name in ("dill", "alibi_detect", "pickle_payload", "tensorflow") if name in sys.modules))
"""


class Payload:
    """What runs when it is unpickled: it says in which process, and what it finds there."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> tuple[Any, ...]:
        program = (
            "import os, sys, types\n"
            "sys.modules['pickle_payload'] = types.ModuleType('pickle_payload')\n"
            f"open({str(self.told)!r}, 'a').write(f'{{os.getpid()}} {{dict(os.environ)}}\\n')\n"
        )
        return eval, (f"(exec({program!r}), lambda x: x)[1]",)


def test_code_in_a_saved_detector_runs_apart(reference: Frame, tmp_path: Path) -> None:
    import dill

    through(lambda x: x, reference, tmp_path / "saved")
    told = tmp_path / "told"
    (function,) = (tmp_path / "saved").rglob("*.dill")
    function.write_bytes(dill.dumps(Payload(told)))
    (tmp_path / "schema.yaml").write_text(
        "{format_version: 1, model: m, features: ["
        + ", ".join(f"{{name: f{i}, kind: numeric}}" for i in range(5))
        + "]}"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", PARENT, tmp_path],
        env={**os.environ, "GOVERN_BUS_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 4,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    alarm, parent, imported = ran.stdout.split("\n")[:3]
    assert alarm in ("True", "False")
    assert imported == "", "the parent imported what only the child may"
    lines = told.read_text().splitlines()
    assert len(lines) == 2, "once when it was adopted, once when it was judged with"
    assert all(line.split(" ", 1)[0] != parent and "secret" not in line for line in lines)


def gated(entered: Path, gate: Path) -> Callable[[np.ndarray], np.ndarray]:
    def step(x: np.ndarray) -> np.ndarray:
        import os
        import time

        if not os.path.exists(gate):
            with open(entered, "w") as file:
                file.write(str(os.getpid()))
            os.replace(entered, f"{entered}.whole")
        while not os.path.exists(gate):
            time.sleep(0.01)
        return x

    entered, gate = str(entered), str(gate)  # type: ignore[assignment] - nothing of this test's modules is pickled
    return step


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline is over"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_window_in_which_its_process_is_killed_is_judged_by_the_next(
    reference: Frame, window: Frame, tmp_path: Path
) -> None:
    entered, gate = tmp_path / "entered", tmp_path / "gate"
    gate.touch()
    through(gated(entered, gate), reference, tmp_path / "saved")
    adopted = saved.adopt(tmp_path / "saved", reference.schema)
    expected = adopted.score(window)
    gate.unlink()
    found: list[object] = []
    judging = threading.Thread(target=lambda: found.append(adopted.score(window)))
    judging.start()
    whole = Path(f"{entered}.whole")
    until(whole.exists)
    pid = int(whole.read_text())
    os.kill(pid, signal.SIGSTOP)  # so that it does not pass the gate before it is killed
    gate.touch()
    os.kill(pid, signal.SIGKILL)
    judging.join(DEADLINE_S)
    assert found == [expected]
    assert adopted._child.pid != pid
    until(lambda: not alive(pid))


def test_a_detector_that_ends_its_process_fails_its_window_only(reference, window, ks: Path, tmp_path: Path) -> None:
    def deadly(x: np.ndarray) -> np.ndarray:
        import os

        if len(x) == 60:
            os.kill(os.getpid(), 9)
        return x

    adopted = saved.adopt(through(deadly, reference, tmp_path / "saved"), reference.schema)
    other = saved.adopt(ks, reference.schema)
    expected = other.score(window)
    pid = other._child.pid
    with pytest.raises(Unavailable, match="died twice"):
        adopted.score(window)
    assert isinstance(adopted.score(window.take(slice(0, 50))), WindowScores)
    assert (other.score(window), other._child.pid) == (expected, pid), "another detector's process is not concerned"


def test_a_detector_that_takes_too_long_is_ended(reference: Frame, window: Frame, tmp_path: Path) -> None:
    def endless(x: np.ndarray) -> np.ndarray:
        import time

        while len(x) == 60:
            time.sleep(0.01)
        return x

    adopted = saved.adopt(through(endless, reference, tmp_path / "saved"), reference.schema)
    adopted.score(window.take(slice(0, 50)))
    pid = adopted._child.pid
    assert pid is not None
    adopted.deadline_s = 0.2
    with pytest.raises(Unavailable, match="gave no answer: the deadline is over"):
        adopted.score(window)
    until(lambda: not alive(pid))
    adopted.deadline_s = DEADLINE_S
    assert isinstance(adopted.score(window.take(slice(0, 50))), WindowScores)


def test_what_a_detector_raises_is_said(reference: Frame, window: Frame, tmp_path: Path) -> None:
    def choosy(x: np.ndarray) -> np.ndarray:
        if len(x) == 60:
            raise ZeroDivisionError("sixty")
        return x

    adopted = saved.adopt(through(choosy, reference, tmp_path / "saved"), reference.schema)
    with pytest.raises(BadInput, match="KSDrift refuses the window: ZeroDivisionError: sixty"):
        adopted.score(window)


def test_it_has_no_way_to_the_process_that_forks(reference: Frame, window: Frame, tmp_path: Path) -> None:
    """Of what it was forked with, one socket is left: its own."""
    told = str(tmp_path / "told")

    def curious(x: np.ndarray) -> np.ndarray:
        import os

        with open(told, "w") as file:
            for name in os.listdir("/proc/self/fd"):
                if os.path.lexists(f"/proc/self/fd/{name}") and "socket" in os.readlink(f"/proc/self/fd/{name}"):
                    file.write(f"{name}\n")
        return x

    saved.adopt(through(curious, reference, tmp_path / "saved"), reference.schema).score(window)
    assert len(Path(told).read_text().split()) == 1


def test_its_memory_is_bounded(reference: Frame, window: Frame, tmp_path: Path) -> None:
    def greedy(x: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.zeros(10**12)[:60, None] + x if len(x) == 60 else x

    adopted = saved.adopt(through(greedy, reference, tmp_path / "saved"), reference.schema)
    with pytest.raises(BadInput, match="MemoryError"):
        adopted.score(window)


def test_processes_end_with_whoever_needs_them(ks: Path, reference: Frame, window: Frame) -> None:
    adopted = saved.adopt(ks, reference.schema)
    adopted.score(window)
    pid = adopted._child.pid
    assert pid is not None
    assert alive(pid)
    del adopted
    until(lambda: not alive(pid))


KILLED = """
import sys, time
from pathlib import Path
from detectors import artifacts
from govern.frame import Frame
import numpy as np
adopted = artifacts.load(Path(sys.argv[1]))
adopted.score(Frame(adopted.schema, tuple(np.zeros((5, 40)) + np.arange(40))))
print(adopted._child.pid, adopted._child._host._process.pid, flush=True)
time.sleep(600)
"""


def test_processes_end_when_govern_is_killed(reference: Frame, make_table, tmp_path: Path) -> None:
    table = make_table(100, numeric=5, categorical=0)
    kept(cd.KSDrift(matrix(table), p_val=0.05), tmp_path / "saved")
    saved.adopt(tmp_path / "saved", table.schema).save(tmp_path / "a")
    govern = subprocess.Popen([sys.executable, "-P", "-c", KILLED, tmp_path / "a"], stdout=subprocess.PIPE, text=True)
    try:
        assert govern.stdout is not None
        pids = [int(pid) for pid in govern.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
    finally:
        govern.kill()
        govern.communicate()
    until(lambda: not any(map(alive, pids)))


def test_a_folder_of_something_else(reference: Frame, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no saved detector"):
        saved.adopt(tmp_path, reference.schema)
    (tmp_path / "config.toml").write_text("name = 'NoDrift'\n")
    with pytest.raises(ArtifactError, match="cannot be loaded by alibi-detect"):
        saved.adopt(tmp_path, reference.schema)


def test_a_schema_of_other_columns(ks: Path, make_table) -> None:
    with pytest.raises(ArtifactError, match=r"KSDrift was fitted on 5 columns: the schema of 'made' has 2"):
        saved.adopt(ks, make_table(1, numeric=2, categorical=0).schema)


def test_a_missing_value_is_named(ks: Path, reference: Frame, make_table) -> None:
    adopted = saved.adopt(ks, reference.schema)
    holes = make_table(40, missing=0.2)
    with pytest.raises(BadInput, match=r"feature 'x\d' is missing in row \d+"):
        adopted.score(holes)


def test_it_is_not_fitted(reference: Frame) -> None:
    with pytest.raises(BadInput, match="govern detector adopt"):
        saved.SavedDrift().fit(reference)


def test_a_context_is_for_those_that_take_one(ks: Path, reference: Frame) -> None:
    with pytest.raises(ArtifactError, match="KSDrift"):
        saved.adopt(ks, reference.schema, context=["x0"])


def test_an_interpreter_without_alibi_detect(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    with pytest.raises(MissingExtra, match=r"pip install 'govern\[alibi\]'"):
        Host(str(bare / "bin" / "python")).fork()
    with pytest.raises(Unavailable, match="does not start in /nowhere/python"):
        Host("/nowhere/python").fork()


def test_frames_are_what_was_sent() -> None:
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.array(1.5), "c": np.zeros((0, 4), dtype=bool)}
    message = wire.unpack(wire.pack({"x": [1, "ä"]}, arrays))
    assert message.said == {"x": [1, "ä"]}
    for name, array in arrays.items():
        np.testing.assert_array_equal(message.arrays[name], array)
        assert message.arrays[name].dtype == array.dtype


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_bytes_that_are_no_frame(at: int) -> None:
    frame = bytearray(wire.pack({"x": 1}, {"a": np.arange(3.0)}))
    for broken in (frame[:at], frame[:at] + b"\xff" + frame[at + 1 :], frame + b"x"):
        try:
            said = wire.unpack(bytes(broken))
        except wire.Malformed:
            continue
        assert set(said.arrays) <= {"a"} | set(said.arrays)
        assert all(array.dtype.kind == "f" for array in said.arrays.values())


def test_an_object_is_never_sent() -> None:
    with pytest.raises(wire.Malformed, match="dtype object"):
        wire.pack({}, {"a": np.array([{}], dtype=object)})
