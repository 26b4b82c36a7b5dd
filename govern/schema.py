"""FeatureSchema: what the columns of a model's input are. A person can edit its YAML file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal

import msgspec
import yaml

from govern.errors import BadInput

FORMAT_VERSION: Final = 1

#: Datatypes of the Open Inference Protocol (`govern.codecs.tensor.DTYPES` gives numpy's for them).
DATATYPES: Final = (
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)),
    *("FP16", "BF16", "FP32", "FP64"),
    "BYTES",
)

FeatureKind = Literal["numeric", "categorical", "text", "image", "embedding"]


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One column.

    Attributes:
        name: the column's name; also its V2 tensor's name.
        kind: how detectors and explainers treat it.
        title: what to call it in a sentence ("age"); the name when empty.
        datatype: Open Inference Protocol datatype that the model expects (FP64, INT64, BYTES, ...).
        categories: the known values, in code order (categorical only).
        labels: category -> words for it, used in reasons ("1" -> "married").
        minimum, maximum: range seen in the reference (numeric only).
        nullable: whether a missing value (NaN, null, empty) is acceptable.
        protected: a protected characteristic (age, sex, race ...): shown in reasons as such, never hidden.
        pii: personal data; stored encrypted in the audit store, never in a log line.
    """

    name: str
    kind: FeatureKind
    title: str = ""
    datatype: str = "FP64"
    categories: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    minimum: float | None = None
    maximum: float | None = None
    nullable: bool = False
    protected: bool = False
    pii: bool = False

    @property
    def words(self) -> str:
        return self.title or self.name

    def label(self, category: str) -> str:
        return self.labels.get(category, category)


class FeatureSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The ordered features of one model's input."""

    format_version: int
    model: str
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise BadInput(
                f"schema of {self.model!r}: format_version is {self.format_version}",
                why=f"this release reads version {FORMAT_VERSION}",
                fix="fit the schema again with `govern fit`",
            )
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise BadInput(
                f"schema of {self.model!r}: features {twice or 'are empty'}",
                why="each feature is named once, and a schema has at least one",
                fix="edit the list `features`",
            )
        for feature in self.features:
            if (feature.kind == "categorical") != bool(feature.categories):
                raise BadInput(
                    f"schema of {self.model!r}: feature {feature.name!r}: categories",
                    why="a categorical feature lists its categories, and no other kind has any",
                    fix="list the known values under `categories`, or change `kind`",
                )
            if feature.datatype not in DATATYPES:
                raise BadInput(
                    f"schema of {self.model!r}: feature {feature.name!r}: datatype {feature.datatype!r}",
                    why=f"the protocol has {', '.join(DATATYPES)}",
                    fix="set `datatype` to one of them",
                )
            if len(set(feature.categories)) < len(feature.categories):
                again = next(one for one in feature.categories if feature.categories.count(one) > 1)
                raise BadInput(
                    f"schema of {self.model!r}: feature {feature.name!r}: category {again!r} comes twice",
                    why="a category has one code, its place in the list",
                    fix="list it once",
                )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def index(self, name: str) -> int:
        for position, feature in enumerate(self.features):
            if feature.name == name:
                return position
        raise BadInput(
            f"feature {name!r} is not in the schema of {self.model!r}",
            why=f"it has {', '.join(self.names)}",
            fix="correct the name, or fit the schema again",
        )

    def __getitem__(self, name: str) -> Feature:
        return self.features[self.index(name)]

    @property
    def digest(self) -> str:
        """SHA-256, hex, over the canonical JSON of the schema."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def to_yaml(self) -> str:
        document = msgspec.to_builtins(self)
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)

    @classmethod
    def from_yaml(cls, text: str, *, origin: str = "schema") -> FeatureSchema:
        """Parse the YAML form.

        Raises:
            BadInput: no YAML, an unknown or missing field, a wrong type; `what` names the path.
        """
        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as the date 2026-02-31
            raise BadInput(f"{origin} is no YAML", why=str(error), fix="mend the file's syntax") from error
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise BadInput(
                f"{origin} is no feature schema",
                why=str(error),
                fix="see the fields of govern.schema.Feature, or fit the schema again",
            ) from error

    @classmethod
    def load(cls, path: Path) -> FeatureSchema:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"schema file {path} cannot be read", why=str(error), fix="name an existing file") from error
        return cls.from_yaml(text, origin=str(path))
