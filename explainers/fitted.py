"""What every explainer shares: its fitted state as one value, and the checks of the row it is handed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from explainers.base import GROUP, NotFitted
from explainers.target import Target
from govern import artifact
from govern.errors import ArtifactError, BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import FeatureSchema

E = TypeVar("E")
Param = str | int | float | bool | None

#: The background sample: one array for each feature, named by its position.
BACKGROUND: Final = "background.npz"
STATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Fitted:
    """A background sample and what belongs to it, exactly as it is stored: saving and loading changes no digest.

    Attributes:
        background: rows of numeric and categorical features.
        target: what is explained.
        files: file name -> content; `BACKGROUND`, and a model where the explainer looks inside it.
    """

    manifest: artifact.Manifest
    background: Frame
    target: Target
    files: Mapping[str, bytes]

    @classmethod
    def of(
        cls,
        background: Frame,
        *,
        method: str,
        target: Target,
        params: Mapping[str, Param],
        files: Mapping[str, bytes] | None = None,
    ) -> Fitted:
        """Seal the state.

        Args:
            params: what the constructor takes beside the target to make an equal, unfitted explainer.
            files: data files beside the background.

        Raises:
            BadInput: the background is empty or has a feature that is neither numeric nor categorical.
        """
        _require_tabular(background, method)
        buffer = io.BytesIO()
        columns: dict[str, Any] = {f"c{i}": column for i, column in enumerate(background.columns)}
        np.savez_compressed(buffer, **columns)
        contents = {BACKGROUND: buffer.getvalue(), **(files or {})}
        manifest = artifact.Manifest(
            format_version=artifact.FORMAT_VERSION,
            group=GROUP,
            name=method,
            state_version=STATE_VERSION,
            params={**params, "target": msgspec.to_builtins(target)},
            schema=msgspec.to_builtins(background.schema),
            reference_digest=background.digest,
            files={},
            extra={"background_rows": len(background)},
        )
        return cls(artifact.seal(manifest, contents), background, target, contents)

    @classmethod
    def read(cls, path: Path, *, method: str) -> Fitted:
        """Read the artifact folder that `write` made.

        Raises:
            ArtifactError: damaged, of another method or of another version of its state.
        """
        manifest, files = artifact.read(path, group=GROUP)
        if manifest.name != method or manifest.state_version != STATE_VERSION:
            raise ArtifactError(
                f"artifact {path} holds {manifest.name!r}, state version {manifest.state_version}",
                why=f"{method!r}, state version {STATE_VERSION}, is needed",
                fix="name the right artifact, or fit it again with `govern explain fit`",
            )
        try:
            schema = msgspec.convert(manifest.schema, FeatureSchema)
            target = msgspec.convert(manifest.params["target"], Target)
            with np.load(io.BytesIO(files[BACKGROUND]), allow_pickle=False) as archive:
                columns = tuple(archive[f"c{i}"] for i in range(len(schema.features)))
        except (msgspec.ValidationError, KeyError, ValueError, OSError, EOFError) as error:
            raise ArtifactError(
                f"artifact {path} of {method!r} cannot be read",
                why=f"{type(error).__name__}: {error}",
                fix="fit it again with `govern explain fit`",
            ) from error
        return cls(manifest, Frame(schema=schema, columns=columns), target, files)

    def unfitted(self, kind: Callable[..., E]) -> E:
        """An explainer of this class with the constructor parameters of the artifact.

        Raises:
            ArtifactError: the manifest has other parameters than the class takes.
        """
        params = {name: value for name, value in self.manifest.params.items() if name != "target"}
        try:
            return kind(target=self.target, **params)
        except TypeError as error:
            raise ArtifactError(
                f"artifact of {self.manifest.name!r}: its parameters are not those of this release",
                why=str(error),
                fix="fit it again with `govern explain fit`",
            ) from error

    def write(self, path: Path) -> None:
        artifact.write(path, self.manifest, self.files)


def fitted(state: Fitted | None, method: str) -> Fitted:
    """The state of an explainer that has one.

    Raises:
        NotFitted: it was neither fitted nor loaded.
    """
    if state is None:
        raise NotFitted(method)
    return state


def sample(frame: Frame, rows: int, seed: int) -> Frame:
    """At most `rows` rows, drawn without replacement by `seed`, in their order; without the model's outputs."""
    if len(frame) > rows:
        chosen = np.random.default_rng(seed).choice(len(frame), size=rows, replace=False)
        frame = frame.take(np.sort(chosen))
    return Frame(schema=frame.schema, columns=frame.columns)


def one_row(row: Frame, schema: FeatureSchema, method: str) -> Frame:
    """The row, checked, with the background's schema and nothing but its values.

    Raises:
        BadInput: not exactly one row, or other columns than the background's.
    """
    if len(row) != 1:
        raise BadInput(
            f"{method}: {len(row)} rows were given", why="an explanation is of one row", fix="send one row at a time"
        )
    here = {feature.name: (feature.kind, feature.categories) for feature in row.schema.features}
    there = {feature.name: (feature.kind, feature.categories) for feature in schema.features}
    if list(here.items()) != list(there.items()):
        differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        raise BadInput(
            f"{method}: the row's features differ from the background's: {', '.join(differing) or 'their order'}",
            why="the explainer was fitted with another schema",
            fix="decode the row with the schema that the explainer was fitted with, or fit it again",
        )
    return Frame(schema=schema, columns=row.columns, unseen=row.unseen)


def from_matrix(matrix: npt.NDArray[np.float64], like: Frame) -> Frame:
    """The inverse of `Frame.matrix`: (n, d) float64 to n rows.

    Args:
        like: one row with the schema, whose unseen categories are meant wherever the matrix holds one.
    """
    columns: list[npt.NDArray[np.generic]] = []
    unseen: dict[str, dict[int, str]] = {}
    for position, feature in enumerate(like.schema.features):
        values = matrix[:, position]
        if feature.kind != "categorical":
            columns.append(values)
            continue
        codes = np.where(np.isnan(values), MISSING, values).astype(np.int32)
        columns.append(codes)
        word = like.unseen.get(feature.name, {}).get(0)
        if word is not None:
            unseen[feature.name] = dict.fromkeys(np.flatnonzero(codes == UNSEEN).tolist(), word)
    return Frame(schema=like.schema, columns=tuple(columns), unseen=unseen)


def value_texts(row: Frame) -> tuple[str, ...]:
    """Each value of the row as text, in schema order; "" where it is missing."""
    values = row.row(0)
    return tuple(_text(values[name]) for name in row.schema.names)


def _text(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else value


def _require_tabular(background: Frame, method: str) -> None:
    if len(background) == 0:
        raise BadInput(f"{method}: the background is empty", why="it has no rows", fix="give a reference with rows")
    if any((column == UNSEEN).any() for column in background.columns if column.dtype.kind == "i"):
        raise BadInput(
            f"{method}: the background holds categories that the schema does not list",
            why="the model would be asked about values that have no code",
            fix="list them in the schema, or leave those rows out of the reference",
        )
    odd = [feature.name for feature in background.schema.features if feature.kind not in ("numeric", "categorical")]
    if odd:
        raise BadInput(
            f"{method}: features {', '.join(odd)}",
            why="it explains numeric and categorical features only",
            fix="use an explainer for that kind of feature, or leave them out of the schema",
        )
