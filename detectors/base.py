"""What every detector shares: its fitted state as one value, and the checks of what it is handed."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from govern import artifact, plugins
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.schema import FeatureKind, FeatureSchema

Array = npt.NDArray[Any]
D = TypeVar("D")
Param = str | int | float | bool | None

#: How far probabilities of a row may be from adding up to one: float32 arithmetic over a thousand classes.
SUM_TOLERANCE: Final = 1e-3
#: The only data file of most detectors' artifacts.
ARRAYS: Final = "arrays.npz"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit produced, exactly as it is stored: saving and loading it changes no byte, hence no digest.

    Attributes:
        manifest: of the artifact, with the digests of its files.
        schema: of the reference.
        files: file name -> content.
    """

    manifest: artifact.Manifest
    schema: FeatureSchema
    files: Mapping[str, bytes]

    @classmethod
    def of(
        cls,
        reference: Frame,
        *,
        method: str,
        state_version: int,
        params: Mapping[str, Param],
        arrays: Mapping[str, Array],
        extra: Mapping[str, float] | None = None,
    ) -> Fitted:
        """Seal the state that `method` derived from `reference`.

        Args:
            params: what the constructor takes to make an equal, unfitted detector.
            arrays: the fitted state; no object arrays.
            extra: single numbers of the state that a person may want to read in the manifest (a threshold).
        """
        buffer = io.BytesIO()
        assert not any(array.dtype.hasobject for array in arrays.values())
        members: dict[str, Any] = dict(arrays)
        np.savez_compressed(buffer, **members)
        files = {ARRAYS: buffer.getvalue()}
        manifest = artifact.Manifest(
            format_version=artifact.FORMAT_VERSION,
            group=plugins.DETECTORS,
            name=method,
            state_version=state_version,
            params=dict(params),
            schema=msgspec.to_builtins(reference.schema),
            reference_digest=reference.digest,
            files={},
            extra={"reference_rows": len(reference), **(extra or {})},
        )
        return cls(artifact.seal(manifest, files), reference.schema, files)

    @classmethod
    def read(cls, path: Path, *, method: str, state_version: int, names: Collection[str] = (ARRAYS,)) -> Fitted:
        """Read the artifact folder that `write` made.

        Args:
            names: of its files; none: they are whatever its manifest lists.

        Raises:
            ArtifactError: damaged, of another method or of another version of its state.
        """
        manifest, files = artifact.read(path, group=plugins.DETECTORS)
        if manifest.name != method:
            raise ArtifactError(
                f"artifact {path} was fitted by {manifest.name!r}",
                why=f"it is being read as {method!r}",
                fix="name the right artifact, or the right type in the pipeline's step",
            )
        if manifest.state_version != state_version:
            raise ArtifactError(
                f"artifact {path}: state_version of {method!r} is {manifest.state_version}",
                why=f"this release reads version {state_version}",
                fix="fit it again with this release",
            )
        if names and set(files) != set(names):
            raise ArtifactError(
                f"artifact {path}: files are {sorted(files)}",
                why=f"an artifact of {method!r} has {', '.join(names)} beside its manifest, and nothing else",
                fix="fit it again with `govern fit`",
            )
        try:
            schema = msgspec.convert(manifest.schema, FeatureSchema)
        except msgspec.ValidationError as error:
            raise ArtifactError(
                f"artifact {path}: its schema is damaged", why=str(error), fix="fit it again with `govern fit`"
            ) from error
        return cls(manifest, schema, files)

    def write(self, path: Path) -> None:
        artifact.write(path, self.manifest, self.files)

    @property
    def digest(self) -> str:
        """SHA-256, hex, over parameters, schema and state."""
        return self.manifest.digest

    @property
    def reference_digest(self) -> str:
        return self.manifest.reference_digest

    def arrays(self) -> dict[str, Array]:
        """The fitted state.

        Raises:
            ArtifactError: no npz archive of plain arrays (a pickled object is refused, not opened).
        """
        try:
            with np.load(io.BytesIO(self.files[ARRAYS]), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError) as error:
            raise self.damaged(str(error)) from error

    def number(self, name: str) -> float:
        """A single number of the state.

        Raises:
            ArtifactError: the manifest has none of that name.
        """
        value = self.manifest.extra.get(name)
        if not isinstance(value, float | int):
            raise self.damaged(f"`extra.{name}` is {value!r}, not a number")
        return float(value)

    def construct(self, detector: Callable[..., D]) -> D:
        """An unfitted detector with the parameters of the manifest.

        Raises:
            ArtifactError: the detector takes other parameters, or refuses these.
        """
        try:
            return detector(**self.manifest.params)
        except (TypeError, BadInput) as error:
            raise self.damaged(f"its parameters are refused: {error}") from error

    def damaged(self, why: str) -> ArtifactError:
        return ArtifactError(
            f"artifact of {self.manifest.name!r} holds no state that it can read",
            why=why,
            fix="fit it again with `govern fit`",
        )


class Stored(ABC):
    """A detector whose fitted state is one `Fitted`, from which `_restore` makes what scores."""

    method: ClassVar[str]
    min_instances: int
    #: Of the stored state; another version is refused.
    state_version: ClassVar[int] = 1
    #: Of the artifact's data files; none: they are whatever its manifest lists.
    file_names: ClassVar[tuple[str, ...]] = (ARRAYS,)

    _state: Fitted | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, self.method).schema

    @property
    def digest(self) -> str:
        return fitted(self._state, self.method).digest

    @property
    def reference_digest(self) -> str:
        return fitted(self._state, self.method).reference_digest

    def save(self, path: Path) -> None:
        fitted(self._state, self.method).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        state = Fitted.read(path, method=cls.method, state_version=cls.state_version, names=cls.file_names)
        detector = state.construct(cls)
        detector._restore(state)
        return detector

    @abstractmethod
    def _restore(self, state: Fitted) -> None:
        """Be ready to score by `state`, and keep it.

        Raises:
            ArtifactError: it is none of this detector's.
        """

    def _require_window(self, window: Frame) -> None:
        """Raise BadInput unless the detector has a state, and `window` its reference's columns and rows enough."""
        require_schema(window, self.schema, method=self.method)
        require_rows(window, self.min_instances, method=self.method, what="window")


def fitted(state: Fitted | None, method: str) -> Fitted:
    """The state of a detector that has one.

    Raises:
        BadInput: it was neither fitted nor loaded.
    """
    if state is None:
        raise BadInput(
            f"detector {method!r} has no reference yet",
            why="it was constructed, but neither fitted nor loaded",
            fix="call fit(reference), or load(path) of a fitted artifact",
        )
    return state


def require_rows(frame: Frame, minimum: int, *, method: str, what: str) -> None:
    """Raise BadInput when `frame`, called `what` in the message, has fewer than `minimum` rows."""
    if len(frame) < minimum:
        raise BadInput(
            f"{method}: the {what} has {len(frame)} rows",
            why=f"at least {minimum} are needed",
            fix=f"give a larger {what}",
        )


def require_schema(window: Frame, schema: FeatureSchema, *, method: str) -> None:
    """Raise BadInput unless the window's columns mean what the reference's meant.

    Names, kinds and category codes must agree; titles, labels and marks such as `protected` may be edited freely.
    """
    if window.schema is schema:
        return
    seen = [(feature.name, feature.kind, feature.categories) for feature in window.schema.features]
    known = [(feature.name, feature.kind, feature.categories) for feature in schema.features]
    if seen == known:
        return
    for position, (here, there) in enumerate(zip(seen, known, strict=False)):
        if here != there:
            what = f"feature {position} is {_describe(*here)} in the window and {_describe(*there)} in the reference"
            break
    else:
        what = f"the window has {len(seen)} features, the reference {len(known)}"
    raise BadInput(
        f"{method}: the window's schema is not the reference's",
        why=what,
        fix="decode with the schema that the detector was fitted with, or fit it again",
    )


def require_output(frame: Frame, output: str, *, method: str, what: str = "output") -> npt.NDArray[np.float64]:
    """The (n, k) values of an output.

    Args:
        what: it is of the model, as the message calls it.

    Raises:
        BadInput: the frame has none of that name.
    """
    if output not in frame.outputs:
        raise BadInput(
            f"{method}: the rows have no output {output!r}",
            why=f"they have {', '.join(sorted(frame.outputs)) or 'none'}",
            fix=f"name the model's {what} in the step's parameter `output`, and capture its responses",
        )
    return frame.outputs[output]


def require_fraction(name: str, value: float, *, method: str) -> float:
    """The value of a parameter that lies in (0, 1), both ends excluded.

    Raises:
        BadInput: it does not.
    """
    if not 0.0 < value < 1.0:
        raise BadInput(f"{method}: {name} is {value}", why="it is a share: more than 0, less than 1", fix="correct it")
    return float(value)


def require_at_least(name: str, value: int, minimum: int, *, method: str) -> int:
    """The value of an integer parameter.

    Raises:
        BadInput: it is below `minimum`.
    """
    if value < minimum:
        raise BadInput(f"{method}: {name} is {value}", why=f"the least possible is {minimum}", fix="correct it")
    return int(value)


def positions(schema: FeatureSchema, *kinds: FeatureKind) -> tuple[int, ...]:
    """Where the features of these kinds stand in the schema."""
    return tuple(position for position, feature in enumerate(schema.features) if feature.kind in kinds)


def require_kinds(schema: FeatureSchema, *kinds: FeatureKind, method: str) -> tuple[int, ...]:
    """`positions`, of which there must be one.

    Raises:
        BadInput: the schema has no feature of these kinds.
    """
    found = positions(schema, *kinds)
    if not found:
        raise BadInput(
            f"{method}: the schema of {schema.model!r} has no {' or '.join(kinds)} feature",
            why=f"{method} judges features of that kind only",
            fix="use another detector, or correct `kind` in the schema",
        )
    return found


def _describe(name: str, kind: str, categories: tuple[str, ...]) -> str:
    return f"{name!r} ({kind}{f', {len(categories)} categories' if categories else ''})"
