"""Drift of whole rows given their context, which may change."""

from __future__ import annotations

import math
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from detectors.base import Fitted, positions, require_at_least, require_fraction
from detectors.drift.conditional import ConditionalDiscrepancy
from detectors.drift.joint import JointDrift
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import FeatureResult
from govern.schema import FeatureSchema

Floats = npt.NDArray[np.float64]

#: Labellings that tell a feature that differs from one that does not, at least: twice as many as 1 % needs.
_DRAWS: Final = 199


class ContextMMDDrift(JointDrift):
    """The kernel test of rows given their context: whether they differ more than the context's own change explains.

    More young callers are no drift when age is the context; that young callers now earn less is. A quarter of the
    window's rows lend their contexts, at which what the others and the reference expect of a row is compared
    (`ConditionalDiscrepancy`). Context features are no part of the rows compared. The p-value is by permutation given
    the context, as honest as the estimate of where in the contexts the window's rows are. Where the window has contexts
    that the reference never had, nothing can be compared, and nothing alarms.

    An alarm names the features that differ, by themselves, given the context.

    Args:
        context: names of numeric or categorical features, separated by commas.
        p_val: significance level.
        lam: regularisation of the conditional mean embeddings: more is smoother over the contexts.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        max_reference: rows of the reference to keep, at most: with the window's, N in all, they make an (N, N) kernel,
            whose factor takes N^3 / 3 operations, and each permutation N^2 times a few dozen.
        seed: of the rows kept, of the contexts held out and of the permutations.

    Raises:
        BadInput: `context` names no feature; at `fit`: one that the schema does not have, or all that can be compared.

    References:
        Cobb, Van Looveren (2022): Context-aware drift detection. ICML, PMLR 162, 4087-4111 (the test statistic is its
        MMD-ADiTT).
    """

    method = "context_mmd"

    def __init__(
        self,
        *,
        context: str,
        p_val: float = 0.05,
        lam: float = 0.01,
        permutations: int = 199,
        max_reference: int = 500,
        seed: int = 0,
    ) -> None:
        self.context = tuple(dict.fromkeys(name.strip() for name in context.split(",") if name.strip()))
        if not self.context:
            raise BadInput(
                f"{self.method}: context is {context!r}",
                why="it names the features that may change",
                fix="name one or more features of the schema, separated by commas",
            )
        self.lam = require_fraction("lam", lam, method=self.method)
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        super().__init__(
            p_val=p_val,
            max_reference=max_reference,
            seed=seed,
            context=",".join(self.context),
            lam=self.lam,
            permutations=permutations,
        )

    def fit(self, reference: Frame) -> Self:
        """Keep rows of the reference.

        Raises:
            BadInput: too few rows, no such context, or nothing that could be compared given it.
        """
        self._require_context(reference.schema)
        return super().fit(reference)

    def _require_context(self, schema: FeatureSchema) -> None:
        known = [schema.features[position].name for position in positions(schema, "numeric", "categorical")]
        absent = [name for name in self.context if name not in known]
        if absent or len(known) == len(self.context):
            raise BadInput(
                f"{self.method}: context is {','.join(self.context)!r}",
                why=f"{absent[0]!r} is no numeric or categorical feature of the schema"
                if absent
                else "these are all features, and no other is left to compare",
                fix=f"name some of {', '.join(known)}",
            )

    def _restore(self, state: Fitted) -> None:
        try:
            self._require_context(state.schema)
        except BadInput as error:
            raise state.damaged(str(error)) from error
        self._given = [place for place, one in enumerate(state.schema.features) if one.name in self.context]
        super()._restore(state)

    def _against(self, reference: Floats) -> ConditionalDiscrepancy:
        self._compared = ~np.isin(self._coding.columns, self._given)
        self._discrepancy = ConditionalDiscrepancy(
            reference,
            given=np.repeat(~self._compared, self._coding.widths),
            lam=self.lam,
            permutations=self.permutations,
            seed=self.seed,
        )
        return self._discrepancy

    def _told(self, window: Frame, points: Floats, *, alarm: bool) -> tuple[FeatureResult, ...]:
        """The features compared, tested given the context in an alarm; of a quiet window, NaN."""
        columns = self._coding.columns[self._compared].tolist()
        apart = p_values = np.full(len(columns), np.nan)
        if alarm:
            draws = max(_DRAWS, math.ceil(2 / self.p_val))
            apart, p_values = self._discrepancy.of_features(points, self._coding.widths[self._compared], draws)
        return tuple(
            FeatureResult(
                feature=window.schema.features[position].name,
                statistic_name="conditional_mmd2",
                statistic=float(one),
                p_value=float(p_value),
                effect_size=float(one),
                effect_size_name="conditional_mmd2",
                threshold=self.p_val,
                n=len(window),
                is_drift=bool(p_value < self.p_val),
            )
            for position, one, p_value in zip(columns, apart, p_values, strict=True)
        )
