"""Detectors of alibi-detect by name: `detectors.alibi.catalogue` lists them, one class is all of them.

Artifacts hold no object of alibi-detect, only the reference's rows, the parameters and what was simulated or learned
in numbers: the process that holds the detector makes it anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np

from detectors.alibi.catalogue import CHOICES, FRACTIONS, SPECS, Param, Spec
from detectors.alibi.child.wire import Array, Message
from detectors.alibi.held import DEADLINE_S, OPEN_DEADLINE_S, Held, Remembering
from detectors.alibi.host import host
from detectors.alibi.layout import Layout
from detectors.alibi.process import Child, Refused
from detectors.base import Fitted, fitted, require_at_least, require_fraction, require_kinds, require_rows
from detectors.outlier.impute import Imputer
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, Frame
from govern.schema import FeatureKind

#: Of a reference, as the native detectors ask for.
MIN_DRIFT_ROWS: Final = 20
MIN_OUTLIER_ROWS: Final = 50
#: What was simulated when it was fitted: loading it draws no thresholds of its own.
SIMULATED: Final = "simulated/"


class Named(Held):
    """A detector of alibi-detect that is made of the reference and plain parameters.

    Args:
        params: those of its row in `SPECS`.
        seed, deadline_s: see `Held`.

    Drift detectors refuse a window with a missing number; outlier detectors are given the reference's typical value.
    """

    spec: ClassVar[Spec]

    def __init__(self, *, seed: int = 0, deadline_s: float = DEADLINE_S, **params: Param) -> None:
        super().__init__(seed=seed, deadline_s=deadline_s)
        for name in params:
            if name not in self.spec.params:
                raise TypeError(f"got an unexpected keyword argument {name!r}")
        self.params = {name: self._param(name, params.get(name, default)) for name, default in self.spec.params.items()}
        self.min_instances = self.spec.min_instances

    def _param(self, name: str, value: Param) -> Param:
        if name in FRACTIONS:
            return require_fraction(name, float(value), method=self.method)
        if name in CHOICES:
            if value not in CHOICES[name]:
                known = " and ".join(f'"{one}"' for one in CHOICES[name])
                raise BadInput(
                    f"{self.method}: {name} is {value!r}",
                    why=f"alibi-detect knows {known}",
                    fix="name one of them",
                )
            return value
        return require_at_least(name, int(value), 1, method=self.method)

    @property
    def detector(self) -> str:
        return self.spec.name

    @property
    def contamination(self) -> float | None:
        """The share of the reference that may be flagged; None of a detector that is not told it."""
        stated = self.params.get("contamination")
        return None if stated is None else float(stated)

    @property
    def _correction(self) -> str:
        return str(self.params.get("correction", "none"))

    def fit(self, reference: Frame) -> Self:
        host()  # without alibi-detect, that is what is said of it
        least = MIN_DRIFT_ROWS if self.kind == "drift" else MIN_OUTLIER_ROWS
        require_rows(reference, least, method=self.method, what="reference")
        columns = self._columns(reference)
        arrays: dict[str, Array] = {"columns": np.array(columns, dtype=np.int64)}
        if self.kind == "outlier":
            imputer = Imputer.of(reference, columns)
            arrays |= {"fills": imputer.fills, "reference": imputer.rows(reference)}
        else:
            arrays["reference"] = Layout(self.method, columns, (), "float64").question(reference)[1]["x"]
        child = self._made(arrays, [reference.schema.features[position].kind for position in columns])
        try:
            said, simulated = child.opened()
        except Refused as error:
            raise BadInput(
                f"{self.method}: {self.detector} refuses the reference",
                why=str(error),
                fix="see alibi-detect's documentation of the detector",
            ) from error
        kept = {name: array for name, array in simulated.items() if name.startswith(SIMULATED)}
        if kept:
            child.close()
        state = Fitted.of(
            reference,
            method=self.method,
            state_version=self.state_version,
            params={**self.params, "seed": self.seed, "deadline_s": self.deadline_s},
            arrays=arrays | kept,
            extra={"threshold": float(said["threshold"])} if self.kind == "outlier" else {},
        )
        self._restore(state, None if kept else child)
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        host()
        return super().load(path)

    def _restore(self, state: Fitted, child: Child | None = None) -> None:
        """Make of the state what scores; `child` holds the detector already, or another is started."""
        arrays = state.arrays()
        try:
            columns = tuple(int(position) for position in arrays["columns"])
            kinds = [state.schema.features[position].kind for position in columns]
            self._imputer = (
                Imputer(columns=arrays["columns"], fills=arrays["fills"]) if self.kind == "outlier" else None
            )
            if arrays["reference"].ndim != 2 or arrays["reference"].shape[1] != len(columns):
                raise state.damaged(f"a reference of shape {arrays['reference'].shape} for {len(columns)} columns")
        except (KeyError, IndexError) as error:
            raise state.damaged(str(error)) from error
        self._layout = Layout(self.method, columns, (), "float32" if self.spec.backend else "float64")
        self._child = child or self._made(arrays, kinds)
        self._state = state

    def _made(self, arrays: dict[str, Array], kinds: list[FeatureKind]) -> Child:
        opening = {
            "make": self.spec.name,
            "kind": self.kind,
            "seed": self.seed,
            "params": {name: value for name, value in self.params.items() if name != "contamination"},
            "contamination": self.params.get("contamination"),
            "backend": self.spec.backend,
            "categorical": [place for place, kind in enumerate(kinds) if kind == "categorical"],
        }
        given = {name: array for name, array in arrays.items() if name == "reference" or name.startswith(SIMULATED)}
        return Child(host(), opening, given, what=self.method, open_deadline_s=OPEN_DEADLINE_S)

    def _columns(self, reference: Frame) -> tuple[int, ...]:
        columns = require_kinds(reference.schema, *self.spec.features, method=self.method)
        if self.spec.binary:
            columns = tuple(position for position in columns if _binary(reference, position))
        if not columns or (self.spec.alone and len(columns) > 1):
            wanted = "a column of two values (0 and 1, or two categories)" if self.spec.binary else "one numeric column"
            raise BadInput(
                f"{self.method}: the schema of {reference.schema.model!r} has {len(columns) or 'no'} columns for it",
                why=f"{self.detector} takes {wanted}",
                fix="use another detector, or leave the others out of the schema",
            )
        return columns

    def _question(self, window: Frame) -> tuple[dict[str, Any], dict[str, Array]]:
        if self._imputer is not None:
            return {}, {"x": self._imputer.rows(window)}
        return self._layout.question(window)

    def _opened(self) -> Message:
        found = super()._opened()
        if self.kind != "outlier":
            return found
        threshold, expected = float(found.said["threshold"]), fitted(self._state, self.method).number("threshold")
        if not np.isclose(threshold, expected, rtol=1e-9, atol=0.0):
            raise ArtifactError(
                f"artifact of {self.method!r}: the {self.detector} made from its reference is another one",
                why=f"its threshold is {threshold!r}, the fitted one's {expected!r}",
                fix="use the alibi-detect and scikit-learn that it was fitted with, or fit it again",
            )
        return found


class RememberingNamed(Remembering, Named):
    """One whose verdict depends on the rows before."""


def _binary(reference: Frame, position: int) -> bool:
    if reference.schema.features[position].kind == "categorical":
        return len(reference.schema.features[position].categories) == 2
    column = reference.columns[position]
    return bool(np.isin(column[~np.isnan(column)] if column.dtype.kind == "f" else column, (0, 1, MISSING)).all())


def __getattr__(name: str) -> Any:
    """The class of a detector in the catalogue, as entry points name it."""
    if name not in SPECS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _class(name)


@cache
def _class(name: str) -> type[Named]:
    spec = SPECS[name]
    base = RememberingNamed if spec.remembers else Named
    members = {"spec": spec, "kind": spec.kind, "method": f"alibi_detect.{name}", "__module__": __name__}
    return type(name, (base,), {**members, "__doc__": f"alibi-detect's {name}: see `detectors.alibi.catalogue`."})
