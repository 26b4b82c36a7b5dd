"""How a request can fail in a flow, whatever its steps do."""

from __future__ import annotations

from govern.errors import BadInput, GovernError, Unavailable


class StepRefused(BadInput):
    """A step cannot take what the request brought it. `step` names it."""

    code = "step-refused"
    step = ""


class StepFailed(GovernError):
    """A step could not do its work. `http_status` is that of its cause; `step` names it."""

    code = "step-failed"
    step = ""


class TooManyVisits(GovernError):
    """A request went around a loop more often than the pipeline allows. `step` is the one that it came back to."""

    code = "too-many-visits"
    step = ""
    #: RFC 5842 section 7.2, "Loop Detected".
    http_status = 508


class DeadlinePassed(GovernError):
    """The request's time was up before its last step was done."""

    code = "deadline-passed"
    http_status = 504


class Unreachable(Unavailable):
    """Nobody answers at a model's address, or who answers says that the model is away: to be asked again."""


class NoOutput(GovernError):
    """The request came to rest, and nothing had reached the pipeline's output."""

    code = "no-output"


def of_step(pipeline: str, step: str, error: Exception) -> StepRefused | StepFailed:
    """What a step raised, as the failure of the request: it names the step, and keeps the cause's status."""
    where = f"pipeline {pipeline!r}, step {step!r}"
    failed: StepRefused | StepFailed
    if isinstance(error, BadInput):
        failed = StepRefused(f"{where}: {error.what}", why=error.why, fix=error.fix)
    elif isinstance(error, GovernError):
        failed = StepFailed(f"{where}: {error.what}", why=error.why, fix=error.fix)
        failed.http_status = error.http_status
    else:
        failed = StepFailed(
            f"{where} failed",
            why=f"{type(error).__name__}: {error}",
            fix="mend the step; its traceback is in the log of the process that ran it",
        )
    failed.step = step
    return failed
