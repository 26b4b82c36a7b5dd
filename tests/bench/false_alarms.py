"""False alarms of the univariate detectors over 500 real columns without drift, at each window size and correction.

The columns: 61 pixels of digits (scikit-learn; those that are not the same in all images), and the columns of 32 strata
of the census (people of one year and of one eighth of the ages: disjoint rows), of which as many as make 500 are taken.
Rows are shuffled, so that reference and window are of one population. A schema is learned from each reference, as
`govern fit` learns it: its ranges and categories are those of the reference.

Windows of one reference depend on each other through it, so references are drawn anew, and the interval of a rate is
that of a bootstrap over references, not over windows. A cell is marked where the interval lies above the nominal rate:

    nice -n 12 .venv/bin/python -m tests.bench.false_alarms [--references 100] [--windows 100] [--only ks cvm]
        [--data ../shared/data/acs-employment]

Detectors run without `signals`: nothing is missing here, and tests that cannot alarm would only hide those that do.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn import datasets
from threadpoolctl import threadpool_limits

from detectors.drift.correction import Correction, corrected_threshold
from govern import plugins
from govern.detection import WindowScores
from govern.frame import UNSEEN, Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

LEVEL = 0.05
SIZES = (20, 50, 200, 1000)
#: Digits have 1,797 rows; the largest window is drawn of what the reference leaves.
REFERENCE = 700
COLUMNS = 500
AGE_BANDS = 8
CORRECTIONS: tuple[Correction, ...] = ("bonferroni", "holm", "fdr")
QUICK = ("ks", "cvm", "chi_squared", "fet", "tabular", "sketched", "data_quality")
#: They permute rows, so that they are given a share of the windows.
SLOW = ("psi", "jensen_shannon", "hellinger", "l_infinity", "wasserstein")
SLOW_SHARE = 0.1
#: Of an interval; one of a thousand cells lies above it by chance.
INTERVAL = (0.1, 99.9)
RESAMPLES = 10_000
CENSUS = Path(__file__).parents[3] / "shared" / "data" / "acs-employment"
NOT_FEATURES = {"id", "employed", "year", "prediction"}


@dataclass(frozen=True, slots=True)
class Source:
    """A real table: columns by name, numbers as float64 and categories as codes in int32."""

    name: str
    columns: dict[str, npt.NDArray[Any]]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def digits() -> Source:
    pixels = datasets.load_digits().data.astype(np.float64).T
    return Source("digits", {f"pixel{i}": column for i, column in enumerate(pixels) if column.std() > 0})


def census(data: Path) -> Iterator[Source]:
    """Columns of two values or more in people of one year and one eighth of the ages."""
    people = pa.concat_tables(
        table.select([name for name in table.column_names if name != "employed"]).unify_dictionaries()
        for table in (pq.read_table(data / f"employment_MA_{part}.pq") for part in ("reference", "analysis"))
    ).unify_dictionaries()
    columns = {}
    for name in people.column_names:
        values = people[name].combine_chunks()
        columns[name] = (
            values.indices.to_numpy().astype(np.int32) if pa.types.is_dictionary(values.type) else values.to_numpy()
        )
    for year in np.unique(columns["year"]):
        of_year = np.flatnonzero(columns["year"] == year)
        by_age = of_year[np.argsort(columns["AGEP"][of_year], kind="stable")]
        for band, rows in enumerate(np.array_split(by_age, AGE_BANDS)):
            taken = {name: column[rows] for name, column in columns.items() if name not in NOT_FEATURES}
            yield Source(f"{year}.{band}", {name: one for name, one in taken.items() if len(np.unique(one)) > 1})


@cache
def sources(data: Path) -> tuple[Source, ...]:
    kept, left = [], COLUMNS
    for source in (digits(), *census(data)):
        names = list(source.columns)[:left]
        left -= len(names)
        if names:
            kept.append(Source(source.name, {name: source.columns[name] for name in names}))
    assert left == 0
    return tuple(kept)


def schema_of(columns: Sequence[tuple[str, npt.NDArray[Any]]]) -> FeatureSchema:
    """What a reference says of itself."""
    return FeatureSchema(
        format_version=FORMAT_VERSION,
        model="bench",
        features=tuple(
            Feature(name=name, kind="numeric", minimum=float(column.min()), maximum=float(column.max()))
            if column.dtype.kind == "f"
            else Feature(name=name, kind="categorical", categories=tuple(map(str, np.unique(column))))
            for name, column in columns
        ),
    )


class Stream:
    """A reference, and windows of the rows that it leaves, all of one shuffle."""

    def __init__(self, tables: Sequence[Source], generator: np.random.Generator) -> None:
        self._tables, self._generator = tables, generator
        self._orders = [generator.permutation(table.rows) for table in tables]
        named = [(f"{table.name}.{name}", table.columns[name]) for table in tables for name in table.columns]
        first = self._rows([order[:REFERENCE] for order in self._orders])
        self._schema = schema_of([(name, column) for (name, _), column in zip(named, first, strict=True)])
        self._codes = []
        for (_, whole), column in zip(named, first, strict=True):
            known = np.unique(column)
            codes = np.full(int(whole.max()) + 1, UNSEEN, dtype=np.int32)
            if whole.dtype.kind == "i":
                codes[known] = np.arange(len(known))
            self._codes.append(codes)
        self.reference = self._frame(first)

    def window(self, size: int) -> Frame:
        return self._frame(
            self._rows([self._generator.choice(order[REFERENCE:], size, replace=False) for order in self._orders])
        )

    def _rows(self, taken: Sequence[npt.NDArray[np.intp]]) -> list[npt.NDArray[Any]]:
        return [
            column[rows] for table, rows in zip(self._tables, taken, strict=True) for column in table.columns.values()
        ]

    def _frame(self, columns: Sequence[npt.NDArray[Any]]) -> Frame:
        return Frame(
            schema=self._schema,
            columns=tuple(
                column if column.dtype.kind == "f" else codes[column]
                for column, codes in zip(columns, self._codes, strict=True)
            ),
        )


#: (detector, size) -> signal -> the share of its tests that say drift; correction -> the share of windows that alarm.
Rates = dict[tuple[str, int], dict[str, float]]


def rates(number: int, names: Sequence[str], windows: int, data: Path) -> tuple[Rates, dict[str, int]]:
    """What detectors say of the windows of one reference, and their number of tests."""
    with threadpool_limits(limits=1):
        generator = np.random.default_rng(number)
        stream = Stream(sources(data), generator)
        detectors = {
            name: plugins.load(plugins.DETECTORS, name)(
                p_val=LEVEL, correction="none", seed=number, **({} if name == "data_quality" else {"signals": False})
            ).fit(stream.reference)
            for name in names
        }
        found: Rates = {(name, size): defaultdict(float) for name in names for size in SIZES}
        tests = {}
        for size in SIZES:
            for window in range(windows):
                rows = stream.window(size)
                for name, detector in detectors.items():
                    if window >= windows_of(name, windows):
                        continue
                    scores = detector.score(rows)
                    assert isinstance(scores, WindowScores)
                    p_values = np.array([one.p_value for one in scores.features])
                    signals = np.array([one.signal for one in scores.features])
                    tests[name] = len(p_values)
                    here = {
                        signal: float((p_values[signals == signal] < LEVEL).mean()) for signal in np.unique(signals)
                    }
                    for correction in CORRECTIONS:
                        threshold = corrected_threshold(p_values, LEVEL, correction)
                        here[correction] = float((p_values < threshold).any())
                    for what, share in here.items():
                        found[name, size][str(what)] += share / windows_of(name, windows)
        return found, tests


def windows_of(name: str, windows: int) -> int:
    return max(1, round(windows * SLOW_SHARE)) if name in SLOW else windows


def cell(shares: npt.NDArray[np.float64]) -> str:
    """The mean over references in %, its interval, and whether that lies above the nominal one."""
    drawn = np.random.default_rng(0).integers(len(shares), size=(RESAMPLES, len(shares)))
    low, high = np.percentile(100 * shares[drawn].mean(axis=1), INTERVAL)
    text = f"{100 * shares.mean():.2f} ({low:.2f}-{high:.2f})"
    return f"**{text}**" if low > 100 * LEVEL else text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=100)
    parser.add_argument("--windows", type=int, default=100, help="of each reference and size")
    parser.add_argument("--only", nargs="+", choices=(*QUICK, *SLOW), default=(*QUICK, *SLOW))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", type=Path, default=CENSUS)
    parser.add_argument("--minutes", type=float, default=600, help="print what was judged until then")
    options, started = parser.parse_args(arguments), monotonic()
    if not options.data.is_dir():
        sys.exit(f"{options.data} has no census; name its folder with --data")
    tables = sources(options.data)
    of_kind = [column.dtype.kind for table in tables for column in table.columns.values()]
    print(f"{len(of_kind)} columns of {len(tables)} tables, {of_kind.count('f')} of them numeric;", end=" ")
    print(f"references of {REFERENCE} rows, nominal {100 * LEVEL:.0f} %\n", flush=True)
    judge = partial(rates, names=options.only, windows=options.windows, data=options.data)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("fork")) as processes:
        judged = []
        for one in processes.map(judge, range(options.references)):
            judged.append(one)
            if monotonic() - started > 60 * options.minutes:
                break
        processes.shutdown(cancel_futures=True)
    print("| detector | rows | tests | references x windows | each test | " + " | ".join(CORRECTIONS) + " |")
    print("| --- | ---: | ---: | ---: |" + " ---: |" * (1 + len(CORRECTIONS)))
    for name in options.only:
        for size in SIZES:
            cells = {
                what: cell(np.array([found[name, size][what] for found, _ in judged]))
                for what in judged[0][0][name, size]
            }
            of_all = [cells.pop(correction) for correction in CORRECTIONS]
            each = "<br>".join(f"{signal} {text}".strip() for signal, text in cells.items())
            counts = f"{len(judged)} x {windows_of(name, options.windows)}"
            print(f"| {name} | {size:,} | {judged[0][1][name]:,} | {counts} | {each} | {' | '.join(of_all)} |")


if __name__ == "__main__":
    main()
