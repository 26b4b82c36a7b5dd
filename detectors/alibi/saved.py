"""A detector that alibi-detect saved, as it is: `config.toml` and what belongs to it, or the older `meta.dill`.

Loading one runs code: pickled functions, models with layers of their own. So the artifact holds the SHA-256 of every
file; they are checked first, and what was checked, byte for byte, is what a process apart (`detectors.alibi.host`)
opens. Nothing of it is imported or unpickled here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np

from detectors.alibi.answers import no_answer
from detectors.alibi.child.wire import Array
from detectors.alibi.held import DEADLINE_S, OPEN_DEADLINE_S, Held, Remembering, opened
from detectors.alibi.host import host
from detectors.alibi.layout import Layout
from detectors.alibi.process import Child
from detectors.base import Fitted, fitted, require_at_least
from govern import artifact, plugins
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.schema import FeatureSchema

#: Where the saved folder lies in the artifact.
FOLDER: Final = "saved/"
#: Either is in each folder that alibi-detect saved.
MARKS: Final = ("config.toml", "meta.dill", "meta.pickle")
#: What a drift detector that judges windows is given at least, as the native ones ask for.
MIN_DRIFT_ROWS: Final = 20
#: What it says of itself when it is adopted, kept in the manifest.
_DESCRIBED: Final = ("detector", "kind", "remembers", "alibi_detect", "correction", "p_value", "threshold")


class Saved(Held):
    """A detector from alibi-detect's own saved folder; the classes below are one and the same, but for what they are.

    `govern detector adopt` makes its artifact; it cannot be fitted here.

    Args:
        seed: from which its random numbers are drawn anew for each window: permutations, training, sampling.
        min_instances: the fewest rows that it is given.
        context: names of features that it is given beside the others.
        dtype: of the array that it is given.
        deadline_s: in which it must have judged a window; its process is killed then.
    """

    file_names = ()

    def __init__(
        self,
        *,
        seed: int = 0,
        min_instances: int = 1,
        context: Sequence[str] = (),
        dtype: str = "float32",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        super().__init__(seed=seed, deadline_s=deadline_s)
        self.min_instances = require_at_least("min_instances", min_instances, 1, method=self.method)
        if dtype not in ("float32", "float64"):
            raise BadInput(f"{self.method}: dtype is {dtype!r}", why="it is float32 or float64", fix="correct it")
        self.context, self.dtype = tuple(context), dtype

    @property
    def detector(self) -> str:
        return str(fitted(self._state, self.method).manifest.extra["detector"])

    def fit(self, reference: Frame) -> Self:
        raise BadInput(
            f"{self.method} is not fitted",
            why="it is a detector that alibi-detect fitted and saved",
            fix="govern detector adopt FOLDER --schema schema.yaml --out ARTIFACT",
        )

    def _restore(self, state: Fitted) -> None:
        extra = state.manifest.extra
        if not isinstance(extra.get("detector"), str):
            raise state.damaged(f"`extra.detector` is {extra.get('detector')!r}")
        self._layout = Layout.of(state.schema, method=self.method, context=self.context, dtype=self.dtype)
        files = {name.removeprefix(FOLDER): data for name, data in state.files.items() if name.startswith(FOLDER)}
        self._child = _child(files, self.seed, what=f"{self.method} ({extra['detector']})")
        self._state = state

    def _question(self, window: Frame) -> tuple[dict[str, Any], dict[str, Array]]:
        return self._layout.question(window)

    @property
    def _correction(self) -> str:
        return str(fitted(self._state, self.method).manifest.extra.get("correction") or "none")


class SavedDrift(Saved):
    """Of `alibi_detect.cd`: judges each window by itself."""

    kind = "drift"
    method = "alibi_detect.saved_drift"


class SavedOnlineDrift(Remembering, Saved):
    """Of `alibi_detect.cd`, online: takes one row after the other, across windows."""

    kind = "drift"
    method = "alibi_detect.saved_online_drift"


class SavedOutlier(Saved):
    """Of `alibi_detect.od`."""

    kind = "outlier"
    method = "alibi_detect.saved_outlier"


class SavedOnlineOutlier(Remembering, Saved):
    """Of `alibi_detect.od`: Mahalanobis, which learns from every row that it scores."""

    kind = "outlier"
    method = "alibi_detect.saved_online_outlier"


class SavedAdversarial(Saved):
    """Of `alibi_detect.ad`."""

    kind = "adversarial"
    method = "alibi_detect.saved_adversarial"


_CLASSES: Final[tuple[type[Saved], ...]] = (
    SavedDrift, SavedOnlineDrift, SavedOutlier, SavedOnlineOutlier, SavedAdversarial,
)  # fmt: skip


def adopt(
    folder: Path,
    schema: FeatureSchema,
    *,
    seed: int = 0,
    min_instances: int | None = None,
    context: Sequence[str] = (),
    dtype: str | None = None,
    deadline_s: float = DEADLINE_S,
) -> Saved:
    """The detector that alibi-detect saved in `folder`, to be saved as an artifact. It is opened, which runs its code.

    Args:
        schema: of the rows that it is to judge, in the order of the columns that it was fitted on.
        min_instances: by default 20 for drift that is judged by windows, else 1.
        dtype: by default that of its reference.

    Raises:
        ArtifactError: alibi-detect did not save this, cannot load it, or it does not fit the schema.
        MissingExtra: no interpreter with alibi-detect is known.
    """
    files = _files(folder)
    child = _child(files, seed, what=str(folder))
    try:
        said = opened(child, str(folder)).said
    finally:
        child.close()
    try:
        described = {name: said[name] for name in _DESCRIBED}
        shape, kind, rows = said["shape"], described["kind"], int(said["rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise no_answer(str(folder), error) from error
    reader = next((one for one in _CLASSES if (one.kind, one.remembers) == (kind, described["remembers"])), None)
    if reader is None:
        raise no_answer(str(folder), f"a detector of kind {kind!r}")
    layout = Layout.of(schema, method=described["detector"], context=context)
    _check(folder, layout, schema, described["detector"], shape)
    least = MIN_DRIFT_ROWS if kind == "drift" and not described["remembers"] else rows
    params = {
        "seed": seed,
        "min_instances": least if min_instances is None else min_instances,
        "context": list(context),
        "dtype": dtype or said["dtype"],
        "deadline_s": deadline_s,
    }
    stored = {FOLDER + name: data for name, data in files.items()}
    manifest = artifact.Manifest(
        format_version=artifact.FORMAT_VERSION,
        group=plugins.DETECTORS,
        name=reader.method,
        state_version=reader.state_version,
        params=params,
        schema=msgspec.to_builtins(schema),
        reference_digest="",
        files={},
        extra=described,
    )
    sealed = artifact.seal(manifest, stored)
    listing = msgspec.json.encode(sealed.files, order="deterministic")
    sealed = msgspec.structs.replace(sealed, reference_digest=hashlib.sha256(listing).hexdigest())
    state = Fitted(sealed, schema, stored)
    detector = state.construct(reader)
    detector._restore(state)
    return detector


def _child(files: Mapping[str, bytes], seed: int, *, what: str) -> Child:
    contents = {name: np.frombuffer(data, dtype=np.uint8) for name, data in files.items()}
    return Child(host(), {"seed": seed}, contents, what=what, open_deadline_s=OPEN_DEADLINE_S)


def _files(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> content."""
    try:
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if not path.is_dir()
        }
    except OSError as error:
        raise ArtifactError(f"folder {folder} cannot be read", why=str(error), fix="correct the path") from error
    if not any(mark in found for mark in MARKS):
        raise ArtifactError(
            f"folder {folder} is no saved detector",
            why=f"it has none of {', '.join(MARKS)}",
            fix="name the folder that alibi_detect.saving.save_detector wrote",
        )
    return found


def _check(folder: Path, layout: Layout, schema: FeatureSchema, detector: str, shape: Sequence[int] | None) -> None:
    """Refuse a schema that says otherwise than the detector's reference."""
    tabular = schema.features[layout.columns[0]].kind in ("numeric", "categorical")
    if tabular and shape is not None and len(shape) == 1 and shape[0] != layout.width:
        raise ArtifactError(
            f"{folder}: {detector} was fitted on {shape[0]} columns",
            why=f"the schema of {schema.model!r} has {layout.width}"
            + (" beside its context" if layout.context else ""),
            fix="give the schema of the rows that it was fitted on, in their order",
        )
    needs = {"ContextMMDDrift": "what it conditions on", "OutlierProphet": "the time, in seconds since the epoch"}
    if (detector in needs) != bool(layout.context) and detector != "SpectralResidual":
        raise ArtifactError(
            f"{folder}: {detector} {'is given' if layout.context else 'needs'} a context",
            why=f"{needs[detector]} is given to it beside the rows" if detector in needs else "it takes none",
            fix="name the features with --context" if detector in needs else "leave --context out",
        )
