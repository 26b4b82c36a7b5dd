"""How often detectors alarm: without drift, which should be no more often than they say, and with it.

Every row is seeded, so that it comes out the same again. Beside the native detectors stand alibi-detect's where the
extra [alibi] is installed, the rule of thumb that a PSI above 0.2 is drift, and a detector that alarms at random (-P,
because a file here has the name of a package of govern):

    .venv-alibi/bin/python -P tests/bench/quality.py [--fits 200] [--data ../shared/data/acs-employment]

Streams without drift are real tables whose rows are shuffled, so that reference and window are of one population:
the census (American Community Survey, mixed), breast cancer (continuous), digits (counts with many ties). For each fit
a reference and one window of each size are drawn anew, so that alarms are independent and the binomial bound holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as Grid
from scipy.stats import binom
from sklearn import datasets
from threadpoolctl import threadpool_limits

from govern import plugins
from govern.detection import Detector, WindowScores
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from govern.table import Table, frame_of, infer_schema, read

LEVEL = 0.05
SIZES = (20, 50, 200, 1000)
#: Alarms above the bound come by chance in one of a thousand cells of the table.
SURE = 0.999
NATIVE = ("ks", "cvm", "chi_squared", "fet", "tabular", "psi", "jensen_shannon", "hellinger", "l_infinity")
NATIVE += ("wasserstein", "sketched", "data_quality", "classifier")
#: Of the census, whose rows carry what a model answered. A row moved by hand keeps its answer: these see no move.
OF_OUTPUTS = ("prediction_drift", "model_uncertainty")
NATIVE += OF_OUTPUTS
BORROWED = ("alibi_detect.KSDrift", "alibi_detect.ChiSquareDrift", "alibi_detect.TabularDrift")
SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")
#: Windows of a drift, and rows of each.
STEPS, ROWS = 10, 200

#: (reference, generator) -> judges windows: (uncorrected p-values of tests, whether it alarms).
Maker = Callable[[Frame, np.random.Generator], Callable[[Frame], tuple[list[float], bool]]]


def registered(name: str) -> Maker:
    def make(reference: Frame, generator: np.random.Generator) -> Callable[[Frame], tuple[list[float], bool]]:
        detector: Detector = plugins.load(plugins.DETECTORS, name)(p_val=LEVEL).fit(reference)

        def judge(window: Frame) -> tuple[list[float], bool]:
            scores = detector.score(window)
            assert isinstance(scores, WindowScores)
            joint = not np.isnan(scores.p_value)
            return [scores.p_value] if joint else [one.p_value for one in scores.features], scores.alarm

        return judge

    return make


def rule_of_thumb(reference: Frame, generator: np.random.Generator) -> Callable[[Frame], tuple[list[float], bool]]:
    """A PSI above 0.2 in one of the features, as scorecards are watched."""
    detector = plugins.load(plugins.DETECTORS, "psi")(signals=False).fit(reference)

    def judge(window: Frame) -> tuple[list[float], bool]:
        above = [one.statistic > 0.2 for one in detector.score(window).features]
        return [0.0 if one else 1.0 for one in above], any(above)

    return judge


def at_random(reference: Frame, generator: np.random.Generator) -> Callable[[Frame], tuple[list[float], bool]]:
    return lambda window: ([float(generator.random())], bool(generator.random() < LEVEL))


def makers() -> dict[str, Maker]:
    found = {name: registered(name) for name in NATIVE}
    if importlib.util.find_spec("alibi_detect") is not None:
        logging.disable(logging.WARNING)  # alibi-detect says of each fit what it does not need
        found |= {name: registered(name) for name in BORROWED}
    return found | {"PSI > 0.2": rule_of_thumb, "at random": at_random}


def census(data: Path | None) -> tuple[Frame, Frame, np.ndarray]:
    """People of 2015; those of the last year; whether those of 2015 were employed."""
    if data is not None:
        first = read(data / "employment_MA_reference.pq")
        last = pq.read_table(data / "employment_MA_analysis.pq")
        years = last["year"].to_numpy()
        last_rows = Table(str(data), last.filter(years == years.max()))
    else:
        sample = pq.read_table(SAMPLE)
        years = sample["year"].to_numpy()
        first, last_rows = (Table(str(SAMPLE), sample.filter(years == year)) for year in (2015, 2018))
    schema = infer_schema(first, "employment", exclude=[name for name in NOT_FEATURES if name in first.names])
    answers = {"predict_proba": "predicted_probability"}
    return (
        frame_of(first, schema, answers),
        frame_of(last_rows, schema, answers),
        first.column("employed").astype(float),
    )


def numeric(bunch: datasets.Bunch) -> Frame:  # type: ignore[name-defined]
    columns = [column for column in np.asarray(bunch.data, dtype=np.float64).T if column.std() > 0]
    features = tuple(
        Feature(name=f"x{i}", kind="numeric", minimum=float(column.min()), maximum=float(column.max()))
        for i, column in enumerate(columns)
    )
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="bench", features=features)
    return Frame(schema=schema, columns=tuple(columns))


def suits(name: str, frame: Frame) -> bool:
    kinds = {feature.kind for feature in frame.schema.features}
    only = {"chi_squared": "categorical", "fet": "categorical", "alibi_detect.ChiSquareDrift": "categorical"}
    return (name not in only or only[name] in kinds) and (name not in OF_OUTPUTS or bool(frame.outputs))


def false_alarms(console: Console, title: str, pool: Frame, n: int, fits: int) -> None:
    sizes = [size for size in SIZES if n + size <= len(pool)]
    grid = Grid(title=f"{title}: false alarms in %, reference {n:,}, {fits} fits, nominal {100 * LEVEL:.0f}")
    grid.add_column("detector")
    for size in sizes:
        grid.add_column(f"{size:,} rows", justify="right")
    for name, make in makers().items():
        if not suits(name, pool):
            continue
        tests, alarms = dict.fromkeys(sizes, (0, 0)), dict.fromkeys(sizes, 0)
        for fit in range(fits):
            generator = np.random.default_rng((fit, len(pool)))
            order = generator.permutation(len(pool))
            judge = make(pool.take(order[:n]), generator)
            for size in sizes:
                p_values, alarm = judge(pool.take(order[n : n + size]))
                tests[size] = (tests[size][0] + sum(p < LEVEL for p in p_values), tests[size][1] + len(p_values))
                alarms[size] += alarm
        bound = binom.ppf(SURE, fits, LEVEL)
        cells = []
        for size in sizes:
            above = " [red]above[/]" if alarms[size] > bound else ""
            each = 100 * tests[size][0] / max(1, tests[size][1])
            cells.append(f"{100 * alarms[size] / fits:.1f}{above} [dim]({each:.1f} each test)[/]")
        grid.add_row(name, *cells)
    console.print(grid)


def moved(frame: Frame, name: str, by: float, share: float, generator: np.random.Generator) -> Frame:
    """A share of the rows, by chance, with a number moved: a covariate shift."""
    at = frame.schema.index(name)
    column = frame.columns[at] + by * (generator.random(len(frame)) < share)
    return dataclasses.replace(frame, columns=(*frame.columns[:at], column, *frame.columns[at + 1 :]))


def drifts(first: Frame, last: Frame, employed: np.ndarray) -> Iterator[tuple[str, Callable[..., Frame]]]:
    """Name -> (rows of 2015 that are free, step, generator) -> the window of that step."""
    chance = np.where(employed > 0, 0.7, 1.3)

    def drawn(free: np.ndarray, generator: np.random.Generator) -> Frame:
        return first.take(generator.choice(free, ROWS, replace=False))

    def prior(free: np.ndarray, step: int, generator: np.random.Generator) -> Frame:
        weights = chance[free] / chance[free].sum()
        return first.take(generator.choice(free, ROWS, replace=False, p=weights))

    def years(free: np.ndarray, step: int, generator: np.random.Generator) -> Frame:
        return last.take(generator.choice(len(last), ROWS, replace=False))

    yield "three years later", years
    yield "covariate, sudden: age + 6", lambda free, step, rng: moved(drawn(free, rng), "AGEP", 6, 1.0, rng)
    yield (
        "covariate, gradual: + 20 for 4 % more each window",
        lambda free, step, rng: moved(drawn(free, rng), "AGEP", 20, 0.04 * (step + 1), rng),
    )
    yield (
        "covariate, recurring: age + 10 every other window",
        lambda free, step, rng: moved(drawn(free, rng), "AGEP", 10, float(step % 2), rng),
    )
    yield "prior: the employed at half the odds", prior


def power(console: Console, first: Frame, last: Frame, employed: np.ndarray, fits: int) -> None:
    n = min(3000, len(first) // 2)
    grid = Grid(
        title=f"alarms in % of {STEPS} windows of {ROWS} rows (and windows to the first); reference {n:,}, {fits} fits"
    )
    cases = list(drifts(first, last, employed))
    grid.add_column("detector")
    for name, _ in cases:
        grid.add_column(name, justify="right")
    for name, make in makers().items():
        cells = []
        for number, (_, window_of) in enumerate(cases):
            alarms, delays = 0, []
            for fit in range(fits):
                generator = np.random.default_rng((fit, number))
                order = generator.permutation(len(first))
                judge = make(first.take(order[:n]), generator)
                said = [judge(window_of(order[n:], step, generator))[1] for step in range(STEPS)]
                alarms += sum(said)
                delays.append(said.index(True) + 1 if True in said else STEPS + 1)
            cells.append(f"{100 * alarms / (fits * STEPS):.0f} [dim]({np.mean(delays):.1f})[/]")
        grid.add_row(name, *cells)
    console.print(grid)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=200, help="references drawn for each cell")
    parser.add_argument("--data", type=Path, help="folder of the whole census; the repository's sample without it")
    options = parser.parse_args(arguments)
    console = Console(width=160)
    first, last, employed = census(options.data)
    false_alarms(console, "census", first, min(3000, len(first) // 2), options.fits)
    false_alarms(console, "breast cancer", numeric(datasets.load_breast_cancer()), 300, options.fits)
    false_alarms(console, "digits", numeric(datasets.load_digits()), 800, options.fits)
    power(console, first, last, employed, max(1, options.fits // 10))


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
