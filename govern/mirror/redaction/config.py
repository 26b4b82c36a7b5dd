"""The section `redaction` of the capture's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from govern.mirror.redaction.path import parse_path

Action = Literal["drop", "hash", "tokenise", "encrypt", "withhold"]
Side = Literal["request", "response"]

_KEYED: Final = frozenset({"hash", "tokenise"})


class RedactionRule(BaseModel):
    """One rule: where (`path`, `tensor`, `column` or `class`; nothing = the whole body) and what (`action`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True)

    path: str | None = Field(
        default=None, description="Path in a JSON body: messages.content, instances.*.name, **.ssn."
    )
    tensor: str | None = Field(default=None, min_length=1, description="Name of a V2 tensor (or V1 / Seldon column).")
    column: int | str | None = Field(
        default=None, description="A column by name, or by position from 0; with `tensor`, of that tensor only."
    )
    feature_class: Literal["pii", "protected"] | None = Field(
        default=None, alias="class", description="All columns that schema_file marks so."
    )
    side: Literal["request", "response", "both"] | None = Field(
        default=None, description="Default: request for column and class (they are features), both for the others."
    )
    action: Action = Field(description="drop, hash, tokenise, encrypt or withhold (the whole body).")

    @field_validator("path")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None:
            parse_path(value)
        return value

    @field_validator("column")
    @classmethod
    def _column(cls, value: int | str | None, _: ValidationInfo) -> int | str | None:
        if value == "" or (isinstance(value, int) and value < 0):
            raise ValueError("give a column's name, or its position from 0")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [self.path is not None, self.tensor is not None or self.column is not None, bool(self.feature_class)]
        if sum(places) > 1:
            raise ValueError("path, tensor/column and class exclude each other; write one rule for each")
        if not any(places) and self.action != "withhold":
            raise ValueError(f"{self.action} needs a place: path, tensor, column or class")
        return self

    @property
    def sides(self) -> tuple[Side, ...]:
        if self.side == "request" or self.side == "response":
            return (self.side,)
        features = self.feature_class is not None or (self.tensor is None and self.column is not None)
        return ("request",) if self.side is None and features else ("request", "response")


class RedactionConfig(BaseModel):
    """What the shipper takes out of records. Keys are named here, never written here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[RedactionRule, ...] = Field(
        default=(), description="In this order; each sees what those before it left."
    )
    schema_file: Path | None = Field(
        default=None, description="The model's FeatureSchema: marks classes, and orders columns without names."
    )
    key_file: Path | None = Field(
        default=None,
        description="File with the key of hash and tokenise: 32 bytes in base64 (openssl rand -base64 32).",
    )
    key_env: str = Field(
        default="GOVERN_REDACTION_KEY", description="Environment variable with that key, when there is no key_file."
    )
    seal_to: Path | None = Field(
        default=None, description="X25519 public key (PEM) of the audit store, for the action encrypt."
    )
    errors: Literal["withhold", "keep"] = Field(
        default="withhold",
        description="Error texts and bodies of responses from status 400 on: servers repeat inputs in them.",
    )
    spool_key_dir: Path = Field(
        default=Path("/dev/shm"),  # noqa: S108 - the file is made with mode 0600, and must not exist
        description="Folder on tmpfs for the spool's key, used when spool_dir is not on tmpfs itself.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.schema_file is None and any(rule.feature_class for rule in self.rules):
            raise ValueError("a rule names a class; set schema_file, which says which columns are of it")
        if self.seal_to is None and any(rule.action == "encrypt" for rule in self.rules):
            raise ValueError("a rule encrypts; set seal_to, the public key that it encrypts for")
        return self

    @property
    def keyed(self) -> bool:
        """Whether a rule cannot do without a key."""
        return any(rule.action in _KEYED for rule in self.rules)
