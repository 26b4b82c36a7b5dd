"""Catalogue: which explainers are served, as the API tells it. Read from the artifacts' manifests alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from explainers.artifacts import folders
from explainers.base import GROUP
from explainers.target import Target
from govern import artifact
from govern.errors import ArtifactError, NotFound
from govern.schema import FeatureSchema


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """An explainer that is served.

    Attributes:
        name: by which it is asked for.
        method: the entry point's name.
        digest, background_digest, seed: as the explainer states them.
        schema: of the rows that it explains.
    """

    name: str
    method: str
    digest: str
    background_digest: str
    seed: int
    target: Target
    schema: FeatureSchema

    @classmethod
    def read(cls, name: str, path: Path) -> Card:
        """
        Raises:
            ArtifactError: no readable explainer artifact.
        """
        manifest, _ = artifact.read(path, group=GROUP)
        try:
            return cls(
                name=name,
                method=manifest.name,
                digest=manifest.digest,
                background_digest=manifest.reference_digest,
                seed=int(manifest.params.get("seed", 0)),
                target=msgspec.convert(manifest.params.get("target", {}), Target),
                schema=msgspec.convert(manifest.schema, FeatureSchema),
            )
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"artifact {path}: its manifest is damaged",
                why=str(error),
                fix="fit it again with `govern explain fit`",
            ) from error


class Catalogue:
    """Cards by name."""

    def __init__(self, cards: list[Card]) -> None:
        self._cards = {card.name: card for card in cards}

    @classmethod
    def read(cls, folder: Path) -> Catalogue:
        """Of every artifact in a folder (see `explainers.artifacts.folders`)."""
        return cls([Card.read(name, path) for name, path in folders(folder).items()])

    @property
    def cards(self) -> tuple[Card, ...]:
        return tuple(self._cards.values())

    def __getitem__(self, name: str) -> Card:
        card = self._cards.get(name)
        if card is None:
            raise NotFound(
                f"explainer {name!r}",
                why=f"served are {', '.join(sorted(self._cards)) or 'none'}",
                fix="correct the name; GET /v1/explainers lists them",
            )
        return card
