"""The kernel tests of whole rows against alibi-detect's, which compute on TensorFlow: statistics, p-values, verdicts.

make test-tensorflow
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from detectors.alibi.host import PYTHON_VARIABLE
from detectors.drift import lsdd, mmd
from detectors.drift.joint import JointTest
from detectors.drift.permutation import ENOUGH
from detectors.kernels import BUILT_IN, Radial
from detectors.own_kernel import OwnKernel

pytestmark = pytest.mark.tensorflow

PROGRAM = Path(__file__).with_name("tensorflow_kernels.py")
#: As the program has them.
SEEDS, PERMUTATIONS = range(50), 199
P_VAL = 0.05
#: Draws of the native tests where they draw for themselves, as `mmd` and `lsdd` do by default.
OWN_DRAWS = 999

Told = dict[str, npt.NDArray[np.float64]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    """Of each seed the rows, what was drawn, and what alibi-detect says."""
    python = os.environ.get(PYTHON_VARIABLE)
    assert python, f"{PYTHON_VARIABLE} is to name a Python with alibi-detect and TensorFlow: make test-tensorflow"
    folder = tmp_path_factory.mktemp("kernels")
    ran = subprocess.run([python, "-I", PROGRAM, folder], capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    archives = [np.load(folder / f"{seed}.npz") for seed in SEEDS]
    return [{name: archive[name] for name in archive.files} for archive in archives]


def mmd_of(one: Told, permutations: int) -> JointTest:
    name = str(one["kernel"])
    own = OwnKernel(f"tests.detectors.some_kernels:{name}", method="mmd") if name not in BUILT_IN else None
    kernel = own or Radial(name, float(one["mmd_gamma"]))
    return mmd.Discrepancy(one["reference"], kernel=kernel, permutations=permutations, seed=0)


def lsdd_of(one: Told, permutations: int) -> JointTest:
    reference, gamma, ridge = one["reference"][one["lsdd_order"]], float(one["lsdd_gamma"]), float(one["lsdd_ridge"])
    return lsdd.DensityDifference(reference, gamma=gamma, permutations=permutations, seed=0, ridge=ridge)


class Redrawn:
    """Draws the permutations of the program: its windows are their last n, the native ones the first."""

    def __init__(self, seed: int, n: int, before: tuple[int, ...]) -> None:
        self._generator = np.random.RandomState(seed)
        self._n = n
        for size in before:
            self._generator.permutation(size)

    def permutation(self, size: int) -> npt.NDArray[np.int64]:
        return np.roll(self._generator.permutation(size), self._n)


@pytest.mark.parametrize(("method", "make"), [("mmd", mmd_of), ("lsdd", lsdd_of)])
def test_same_statistic_same_p_value_same_verdict_on_all_seeds(
    told: list[Told], monkeypatch: pytest.MonkeyPatch, method: str, make: Callable[[Told, int], JointTest]
) -> None:
    """With the permutations that alibi-detect drew, so that chance explains nothing."""
    alarms = []
    for seed, one in zip(SEEDS, told, strict=True):
        before = (len(one["reference"]),) if method == "lsdd" else ()
        redrawn = Redrawn(seed, len(one["window"]), before)

        def every_draw(observed, draw, *, draws, seed, redrawn=redrawn):  # type: ignore[no-untyped-def]
            """alibi-detect's p-value: of all draws, the share at least as extreme."""
            return float((observed <= draw(redrawn, draws)).mean())

        monkeypatch.setattr(mmd if method == "mmd" else lsdd, "permutation_p", every_draw)
        statistic, p_value = make(one, PERMUTATIONS).run(one["window"])
        assert statistic == pytest.approx(float(one[f"{method}_statistic"]), rel=1e-6, abs=1e-8), seed
        # alibi-detect's LSDDDrift takes the mean of its draws in float32.
        assert p_value == pytest.approx(float(one[f"{method}_p_value"]), abs=1e-7), seed
        assert (p_value < P_VAL) == bool(one[f"{method}_alarm"]), seed
        alarms.append(p_value < P_VAL)
    assert 10 <= sum(alarms) <= 40, "of verdicts that are all alike, nothing is shown"


@pytest.mark.parametrize(("method", "make"), [("mmd", mmd_of), ("lsdd", lsdd_of)])
def test_with_permutations_of_its_own_it_differs_by_their_chance(
    told: list[Told], method: str, make: Callable[[Told, int], JointTest]
) -> None:
    ours = np.array([make(one, OWN_DRAWS).run(one["window"])[1] for one in told])
    theirs = np.array([float(one[f"{method}_p_value"]) for one in told])
    # Of draws that all are taken, and of those that end at twenty extreme ones, which know p to a share of itself.
    ended = np.where(ours > ENOUGH / (OWN_DRAWS + 1), ours / np.sqrt(ENOUGH), np.sqrt(ours * (1 - ours) / OWN_DRAWS))
    error = np.sqrt(theirs * (1 - theirs) / PERMUTATIONS + np.square(ended))
    # Four standard errors, and the one draw by which the definitions differ.
    assert (np.abs(ours - theirs) <= 4 * error + 1 / PERMUTATIONS).all()
    differ = (ours < P_VAL) != (theirs < P_VAL)
    print(
        f"{method}: {np.count_nonzero(~differ)} of {len(differ)} verdicts alike; others", ours[differ], theirs[differ]
    )
    assert (np.abs(theirs - P_VAL) <= 4 * error)[differ].all(), "verdicts differ where p is at its threshold only"
    assert np.count_nonzero(differ) <= 5
