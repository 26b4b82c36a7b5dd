"""Time of one window: the native kernel two-sample tests and alibi-detect's, 1,000 permutations, on one thread.

Run it where alibi-detect is installed with TensorFlow, which its MMDDrift computes with; elsewhere it says so. (-P,
because a neighbour of this file has the name of a package of govern.)

    python -P tests/bench/multivariate.py
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from detectors.distances import median_gamma
from detectors.drift.lsdd import DensityDifference
from detectors.drift.mmd import Discrepancy
from detectors.drift.rff_mmd import FeatureDiscrepancy
from detectors.kernels import Radial

FEATURES = 20
PERMUTATIONS = 1_000
#: Reference rows, window rows.
SIZES = ((500, 250), (1_000, 500), (2_000, 1_000))
#: Standard deviations. A quiet window ends early; one that drifted takes every permutation.
SHIFTS = (0.0, 0.3)


def main() -> None:
    console = Console()
    theirs = None
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("alibi_detect") is None:
        console.print("alibi-detect or TensorFlow is not installed here: only the native times follow.")
    else:
        import tensorflow as tf
        from alibi_detect.cd import MMDDrift

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)

        def theirs(reference, window, gamma):  # type: ignore[no-untyped-def]
            detector = MMDDrift(
                reference.astype(np.float32),
                sigma=np.array([np.sqrt(1 / (2 * gamma))], dtype=np.float32),
                n_permutations=PERMUTATIONS,
                configure_kernel_from_x_ref=False,
            )
            began = time.perf_counter()
            found = detector.predict(window.astype(np.float32))["data"]
            return time.perf_counter() - began, float(found["distance"]), float(found["p_val"])

    table = Table(title=f"{FEATURES} features, {PERMUTATIONS:,} permutations, one thread")
    for heading in (
        "reference",
        "window",
        "shift",
        "mmd ms",
        "rff ms",
        "lsdd ms",
        "alibi ms",
        "ratio",
        "mmd²",
        "alibi's",
        "p",
        "alibi's",
    ):
        table.add_column(heading, justify="right")
    rng = np.random.default_rng(1)
    for m, n in SIZES:
        reference = rng.normal(size=(m, FEATURES))
        gamma = median_gamma(reference)
        kernel = Radial("gaussian", gamma)
        ours = Discrepancy(reference, kernel=kernel, permutations=PERMUTATIONS, seed=0)
        fast = FeatureDiscrepancy(reference, kernel=kernel, frequencies=256, permutations=PERMUTATIONS, seed=0)
        other = DensityDifference(reference, gamma=gamma, permutations=PERMUTATIONS, seed=0)
        for shift in SHIFTS:
            window = rng.normal(shift, 1.0, size=(n, FEATURES))
            ours.run(window), other.run(window), fast.run(window)
            began = time.perf_counter()
            statistic, p_value = ours.run(window)
            took = time.perf_counter() - began
            cells = [f"{m:,}", f"{n:,}", f"{shift}", f"{1e3 * took:.0f}"]
            for test in (fast, other):
                began = time.perf_counter()
                test.run(window)
                cells.append(f"{1e3 * (time.perf_counter() - began):.0f}")
            if theirs is None:
                table.add_row(*cells, "-", "-", f"{statistic:.8f}", "-", f"{p_value:.4f}", "-")
                continue
            seconds, distance, p = theirs(reference, window, gamma)
            cells += [f"{1e3 * seconds:,.0f}", f"{seconds / took:.0f} x", f"{statistic:.8f}", f"{distance:.8f}"]
            table.add_row(*cells, f"{p_value:.4f}", f"{p:.4f}")
    console.print(table)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
