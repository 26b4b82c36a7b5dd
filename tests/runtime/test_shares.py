"""A flagged instance's verdict names the features that its score comes from."""

from __future__ import annotations

import dataclasses

import numpy as np

from detectors.outlier.mahalanobis import MahalanobisOutlier
from govern import record as records
from govern.record import Verdict
from govern.runtime.judge import STRONGEST, Stream, judge
from govern.runtime.windows import ClosedWindow, Rows

STREAM = Stream("n", "s", "employment", "1", "default", "watch", "outlier", "n.inferences", 0)


def test_a_verdict_names_the_features_of_flagged_instances(fitted) -> None:
    reference = fitted.replay
    detector = MahalanobisOutlier(contamination=0.05).fit(reference)
    frame = reference.take(slice(0, 40))
    age = frame.schema.index("AGEP")
    column = frame.columns[age].copy()
    column[3] = 900.0
    columns = (*frame.columns[:age], column, *frame.columns[age + 1 :])
    frame = dataclasses.replace(frame, columns=columns, instance_ids=tuple(f"i/{row}" for row in range(40)))
    rows = Rows.of_message(frame, offset=7, time_ns=1, request_id="r", traceparent="")
    verdict = judge(ClosedWindow(rows=rows, lost=0, closed_by="count"), STREAM, detector).verdict

    old = verdict.instances[3]
    assert old.flagged
    assert old.features[0].feature == "AGEP"
    assert old.features[0].share > 0.8
    for one in verdict.instances:
        shares = [feature.share for feature in one.features]
        assert len(shares) <= STRONGEST * one.flagged
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-9
    assert np.mean([one.flagged for one in verdict.instances]) < 0.5
    assert records.decode(Verdict, records.encode(verdict)).instances == verdict.instances
