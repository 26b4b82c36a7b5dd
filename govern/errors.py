"""The error that every package of govern raises for a cause that a person can mend."""

from __future__ import annotations


class GovernError(Exception):
    """A failure stated for the person who must act on it.

    Args:
        what: what went wrong, naming the field, file or peer concerned.
        why: the cause, as far as it is known.
        fix: what to do about it.

    The CLI prints the three on three lines; the HTTP APIs answer RFC 9457 problem documents
    (`title` = what, `detail` = why, extension member `fix`); a dead-letter record carries all three.
    """

    #: Stable identifier of the kind of failure: the `type` of a problem document, the reason of a dead letter.
    code: str = "govern-error"
    #: The HTTP status that an API answers when this error reaches its edge.
    http_status: int = 500

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}: {self.why} ({self.fix})"


class BadInput(GovernError):
    """What was handed in does not follow its format or schema."""

    code = "bad-input"
    http_status = 422


class DecodeError(BadInput):
    """A payload that cannot be turned into a `Frame`."""

    code = "undecodable-payload"


class ConfigError(BadInput):
    """A configuration or pipeline file that is wrong; `what` names file, line and field."""

    code = "bad-configuration"


class ArtifactError(GovernError):
    """A detector or explainer artifact that is damaged, foreign, or of another format version."""

    code = "bad-artifact"


class MissingExtra(GovernError):
    """An optional dependency is needed and absent."""

    code = "missing-extra"

    def __init__(self, extra: str, *, needed_by: str) -> None:
        super().__init__(
            f"{needed_by} needs the [{extra}] extra",
            why=f"the packages of govern[{extra}] are not installed in this environment",
            fix=f"pip install 'govern[{extra}]'",
        )


class Unavailable(GovernError):
    """A peer (broker, database, model, disk, port) that cannot be used now."""

    code = "unavailable"
    http_status = 503


class NotFound(GovernError):
    """Something named in a request that does not exist."""

    code = "not-found"
    http_status = 404


class Forbidden(GovernError):
    """The caller's role does not allow what it asked for."""

    code = "forbidden"
    http_status = 403
