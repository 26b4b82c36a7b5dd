"""How soon drift is found at equal false alarms: native detectors, alibi-detect's, and those of river, frouros, others.

Every detector gets the same streams of the census, of which the first rows are of the reference's population, and says
how strange each row is, or the window that ends with it. Its threshold is the one that a tenth of one half of the
streams without drift exceed anywhere; whatever its own parameters promise, all then alarm as often without cause. How
often that is, the other half says. A stream that has drifted is found at the first alarm after the change; one in which
there was an alarm before the change is not counted, for nobody knows what that would have done to the next (Pollak's
conditional delay). Those whose score can only rise would else find each such drift at its first row.
(alibi-detect takes part where it is installed.)

    make .venv-peers-drift/.ready
    .venv/bin/python -m tests.bench.peers [--references 2] [--seed 0] [--data ../shared/data/acs-employment] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import logging
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from detectors.online.detector import OnlineDrift
from govern import plugins
from govern.detection import WindowScores
from govern.frame import Frame
from govern.table import Table, frame_of, infer_schema

Floats = npt.NDArray[np.float64]

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = ROOT / ".venv-peers-drift" / "bin" / "python"
PROGRAM: Final = Path(__file__).parent / "judging" / "drift_peers.py"
SAMPLE: Final = ROOT / "tests" / "data" / "acs_sample.parquet"
FEATURES: Final = ("AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG")
REFERENCE: Final = 1_500
WINDOW: Final = 200
#: Rows of a stream before the change, and after it.
BEFORE, AFTER = 1_000, 1_600
#: Of each reference: streams without drift, of which one half sets the thresholds, and streams with each drift.
QUIET, DRIFTED = 40, 6
#: Share of the streams that set its threshold in which a detector alarms.
FALSE: Final = 0.1
#: Rows that the online detectors' own thresholds, whose shape over a stream's first rows is kept, are found for.
ERT: Final = 1_000

WINDOWED: Final = ("tabular", "ks", "psi", "jensen_shannon", "wasserstein", "mmd", "lsdd")
BORROWED: Final = ("alibi_detect.TabularDrift", "alibi_detect.KSDrift")
ONLINE: Final = ("online_cvm", "incremental_ks", "page_hinkley", "adwin", "online_fet", "online_mmd")
#: Their p-values are of permutations, few of which they get here: their score is the statistic.
BY_STATISTIC: Final = {"mmd": 19, "lsdd": 19}
#: Of the streams of errors alone.
OF_ERRORS: Final = ("ddm", "eddm", "hddm_a", "hddm_w")

#: (people who are drawn, those of the last year, generator) -> people after the change.
Change = Callable[[pa.Table, pa.Table, np.random.Generator], pa.Table]


def drawn(people: pa.Table, rng: np.random.Generator, weights: Floats | None = None) -> pa.Table:
    share = None if weights is None else weights / weights.sum()
    return people.take(rng.choice(len(people), AFTER, replace=False, p=share))


def aged(people: pa.Table, by: Floats) -> pa.Table:
    at = people.column_names.index("AGEP")
    return people.set_column(at, "AGEP", pa.array(people["AGEP"].to_numpy() + by))


def prior(people: pa.Table, last: pa.Table, rng: np.random.Generator) -> pa.Table:
    return drawn(people, rng, np.where(people["employed"].to_numpy() > 0, 0.5, 1.0))


ROWS: Final = np.arange(AFTER)
EVERY_OTHER: Final = (ROWS // WINDOW % 2 == 0).astype(float)
#: Of what goes into the model.
COVARIATES: Final[dict[str, Change]] = {
    "2018": lambda people, last, rng: drawn(last, rng),
    "age + 5": lambda people, last, rng: aged(drawn(people, rng), 5.0 * np.ones(AFTER)),
    "age + 20, ever more often": lambda people, last, rng: aged(
        drawn(people, rng), 20.0 * (rng.random(AFTER) < ROWS / AFTER)
    ),
    "age + 10, every other window": lambda people, last, rng: aged(drawn(people, rng), 10.0 * EVERY_OTHER),
    "half of the employed": prior,
}


def relabelled(people: pa.Table, share: Floats, rng: np.random.Generator) -> pa.Table:
    """Of the people under 30, a share is employed who were not, and the other way round: a concept that changes."""
    employed = people["employed"].to_numpy()
    turned = (people["AGEP"].to_numpy() < 30) & (rng.random(len(people)) < share)
    at = people.column_names.index("employed")
    return people.set_column(at, "employed", pa.array(np.where(turned, 1 - employed, employed)))


#: Of what is true, seen as the model's errors when the truth arrives.
CONCEPTS: Final[dict[str, Change]] = {
    "2018": lambda people, last, rng: drawn(last, rng),
    "concept, sudden": lambda people, last, rng: relabelled(drawn(people, rng), 0.3 * np.ones(AFTER), rng),
    "concept, gradual": lambda people, last, rng: relabelled(drawn(people, rng), 0.8 * ROWS / AFTER, rng),
    "concept, recurring": lambda people, last, rng: relabelled(drawn(people, rng), 0.5 * EVERY_OTHER, rng),
}


def census(data: Path | None) -> tuple[pa.Table, pa.Table]:
    """People of 2015 and of 2018, with `employed` and the model's `prediction` of it."""
    if data is None:
        sample = pq.read_table(SAMPLE)
        first, last = (sample.filter(pa.compute.equal(sample["year"], year)) for year in (2015, 2018))
    else:
        first = pq.read_table(data / "employment_MA_reference.pq")
        last = pq.read_table(data / "employment_MA_analysis.pq")
        last = last.join(pq.read_table(data / "employment_MA_analysis_target.pq"), "id")
        last = last.filter(pa.compute.equal(last["year"], pa.compute.max(last["year"])))
    kept = [*FEATURES, "employed", "prediction"]
    return first.select(kept), last.select(kept)


def errors(people: pa.Table) -> pa.Table:
    wrong = (people["employed"].to_numpy() != people["prediction"].to_numpy()).astype(int)
    return pa.table({"wrong": wrong.astype(float), "was": np.where(wrong, "wrong", "right")})


def as_output(frame: Frame) -> Frame:
    """With its first column, which is 1 for an error, as the output that such detectors read."""
    return dataclasses.replace(frame, outputs={"predict_proba": frame.columns[0][:, None]})


def scores_of(detector: str, reference: Frame, streams: Sequence[Frame]) -> Floats:
    """(streams, rows): higher is stranger; NaN where it says nothing."""
    scores = np.full((len(streams), BEFORE + AFTER), np.nan)
    made = plugins.load(plugins.DETECTORS, detector)
    if detector in OF_ERRORS:
        reference, *streams = (as_output(one) for one in (reference, *streams))
    if detector in (*ONLINE, *OF_ERRORS):
        online = made(ert=ERT)
        assert isinstance(online, OnlineDrift)
        online.fit(reference)
        limits = online.thresholds[np.minimum(np.arange(scores.shape[1]), len(online.thresholds) - 1)]
        for stream, row in zip(streams, scores, strict=True):
            statistics, _ = online._tracker.walk(online._tracker.begin(), online._read(stream))
            with np.errstate(invalid="ignore"):  # 0 / 0: nothing above 0 is possible yet
                row[:] = np.fmax.reduce(statistics / limits[:, None], axis=1)
        return np.where(np.isfinite(scores), scores, np.nan)
    own = {"permutations": BY_STATISTIC[detector]} if detector in BY_STATISTIC else {}
    fitted = made(p_val=0.05, **own).fit(reference)
    for stream, row in zip(streams, scores, strict=True):
        for end in range(WINDOW, len(row) + 1, WINDOW):
            told = fitted.score(stream.take(slice(end - WINDOW, end)))
            assert isinstance(told, WindowScores)
            row[end - 1] = told.statistic if own else strangeness(told)
    return scores


def strangeness(told: WindowScores) -> float:
    """By the smallest p-value; between equal ones, as permutations give them, by the statistic."""
    if not np.isnan(told.p_value):
        pairs = [(told.p_value, told.statistic)]
    else:
        pairs = [(one.p_value, one.statistic) for one in told.features]
    return max(1e-6 * statistic - np.log10(max(p_value, 1e-300)) for p_value, statistic in pairs if p_value == p_value)


@contextlib.contextmanager
def peers(references: Floats, streams: Floats, numeric: Sequence[bool]) -> Iterator[Callable[[], dict[str, Floats]]]:
    """Others judge meanwhile; what is given waits for their scores."""
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "streams.npz", Path(folder) / "scores.npz"
        np.savez(asked, reference=references, streams=streams, numeric=np.array(numeric), window=WINDOW)
        with subprocess.Popen([PEERS, PROGRAM, asked, told]) as process:

            def scores() -> dict[str, Floats]:
                if code := process.wait():
                    raise SystemExit(f"{PROGRAM.name} ended with {code}")
                return dict(np.load(told))

            try:
                yield scores
            finally:
                process.kill()


def delays(scores: Floats, threshold: float) -> Floats:
    """Of each stream without an alarm before the change, rows from there to the first one; `AFTER` if there is none."""
    alarms = scores > threshold
    after = alarms[~alarms[:, :BEFORE].any(axis=1), BEFORE:]
    return np.where(after.any(axis=1), 1 + after.argmax(axis=1), AFTER)


def drawings(
    first: pa.Table,
    last: pa.Table,
    changes: dict[str, Change],
    seen: Callable[[pa.Table], pa.Table],
    seeds: Sequence[int],
    quiet: int,
    drifted: int,
) -> list[tuple[Frame, list[Frame]]]:
    """Of each seed a reference and its streams: those without drift, then one of each change, then another of each."""
    schema = infer_schema(Table("census", seen(first)), "employment")
    frames: list[tuple[Frame, list[Frame]]] = []
    size = min(REFERENCE, len(first) // 4)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(first))
        rest = first.take(order[size:])
        streams = []
        for change in (None,) * quiet + tuple(changes.values()) * drifted:
            people = rest.take(rng.permutation(len(rest)))
            before, others = people.slice(0, BEFORE), people.slice(BEFORE)
            after = drawn(others, rng) if change is None else change(others, last, rng)
            streams.append(frame_of(Table("census", seen(pa.concat_tables([before, after]))), schema))
        frames.append((frame_of(Table("census", seen(first.take(order[:size]))), schema), streams))
    return frames


def compared(
    first: pa.Table,
    last: pa.Table,
    changes: dict[str, Change],
    seen: Callable[[pa.Table], pa.Table],
    seeds: Sequence[int],
    quick: bool,
) -> Iterator[list[str]]:
    """Rows of a table: the detector, quiet streams in which it alarmed, and the delay and share of each drift."""
    quiet, drifted = (6, 2) if quick else (QUIET, DRIFTED)
    frames = drawings(first, last, changes, seen, seeds, quiet, drifted)
    numeric = [feature.kind == "numeric" for feature in frames[0][0].schema.features]
    # Errors are there twice for detectors of numbers and of categories of ours; one is enough for the others.
    columns = slice(None) if len(numeric) > 2 else slice(1, 2)
    with peers(
        np.stack([np.column_stack(reference.columns[columns]) for reference, _ in frames]),
        np.stack([[np.column_stack(stream.columns[columns]) for stream in streams] for _, streams in frames]),
        numeric[columns],
    ) as others_say:
        borrowed = BORROWED if importlib.util.find_spec("alibi_detect") else ()
        for name in (*WINDOWED, *borrowed, *ONLINE, *(OF_ERRORS if seen is errors else ())):
            found = np.stack([scores_of(name, reference, streams) for reference, streams in frames])
            yield [name, *cells(found, quiet, len(changes))]
        at_random = np.random.default_rng(0).random((len(seeds), len(frames[0][1]), BEFORE + AFTER))
        yield ["at random", *cells(at_random, quiet, len(changes))]
        for name, found in others_say().items():
            yield [name, *cells(found, quiet, len(changes))]


def cells(scores: Floats, quiet: int, changes: int) -> Iterator[str]:
    """Of (references, streams, rows), the first streams of each reference without drift."""
    maxima = np.nanmax(scores[:, :quiet], axis=2)
    setting, others = maxima[:, : quiet // 2].ravel(), maxima[:, quiet // 2 :].ravel()
    threshold = float(np.sort(setting)[-1 - int(FALSE * len(setting))])
    yield f"{100 * np.mean(others > threshold):.0f}"
    for number in range(changes):
        rows = scores[:, quiet + number :: changes].reshape(-1, BEFORE + AFTER)
        found = delays(rows, threshold)
        yield f"{np.mean(found):,.0f} ({100 * np.mean(found < AFTER):.0f})" if len(found) else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=2, help="references drawn, each with streams of its own")
    parser.add_argument("--seed", type=int, default=0, help="of the first reference; each further one adds 1")
    parser.add_argument("--data", type=Path, help="folder of the whole census; the repository's sample without it")
    parser.add_argument("--of", choices=("inputs", "errors"), help="one of the two tables alone")
    parser.add_argument("--quick", action="store_true", help="a few streams alone: to see that it runs")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    seeds = range(options.seed, options.seed + options.references)
    first, last = census(options.data)
    for of, title, changes, seen in (
        ("inputs", "what goes into the model", COVARIATES, lambda people: people.select(FEATURES)),
        ("errors", "errors of the model", CONCEPTS, errors),
    ):
        if options.of not in (None, of):
            continue
        print(f"\n{title}: mean rows until found, not found counts {AFTER:,} (found in %)\n")
        print("| detector | false | " + " | ".join(changes) + " |")
        print("| --- |" + " ---: |" * (1 + len(changes)), flush=True)
        for row in compared(first, last, changes, seen, seeds, options.quick):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
