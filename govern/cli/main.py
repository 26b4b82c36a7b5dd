"""The `govern` command: one module per sub-command, imported when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from govern import __version__
from govern.cli._common import fail
from govern.errors import GovernError, MissingExtra

#: name -> (module, attribute, one line of help). The attribute is a typer app or a plain command function.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": ("govern.cli.demo", "demo", "See it all work on real data, on this machine, in two minutes."),
    "fit": ("govern.cli.fit", "fit_command", "Fit a schema and detectors from a reference table."),
    "detector": ("govern.cli.detector", "app", "Take over detectors of alibi-detect; sign and verify artifacts."),
    "pipeline": ("govern.cli.pipeline", "app", "Check, show and import pipeline files; keep the fleet."),
    "mirror": ("govern.cli.mirror", "app", "Capture: proxy, shipper, spool."),
    "worker": ("govern.cli.worker", "worker", "Run pipelines over the captured streams."),
    "replay": ("govern.cli.replay", "replay", "Recompute past verdicts and compare them with what was recorded."),
    "serve": ("govern.cli.serve", "serve_command", "Serve the steps of pipelines as V2 models."),
    "explain": ("govern.cli.explain", "app", "Fit, serve and ask for explanations."),
    "audit": ("govern.cli.audit", "app", "Write, query, export and verify the audit log."),
    "dlq": ("govern.cli.dlq", "app", "List, show and retry what could not be processed."),
    "topics": ("govern.cli.topics", "app", "Create and list the topics of a namespace."),
    "doctor": ("govern.cli.doctor", "doctor", "Say what is installed, what is missing, and under which licence."),
}

#: Which extra brings a module that may be absent.
_EXTRA_OF: Final = {
    "httptools": "mirror",
    "uvloop": "mirror",
    "shap": "explain",
    "sqlalchemy": "audit",
    "alembic": "audit",
    "psycopg": "audit",
    "cryptography": "audit",
    "rfc8785": "audit",
    "jwt": "audit",
    "alibi": "alibi",
    "alibi_detect": "alibi",
}


def build(asked: str | None) -> typer.Typer:
    """The command tree with one sub-command imported, the one asked for: `govern --help` stays quick."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name, (module, attribute, help_) in COMMANDS.items():
        if name != asked:
            app.command(name, help=help_)(_only_listed)
            continue
        target = _import(name, module, attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, help=help_, no_args_is_help=True)
        else:
            app.command(name)(target)
    return app


def _import(name: str, module: str, attribute: str) -> Any:
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise MissingExtra(extra, needed_by=f"govern {name}") from error


def _only_listed() -> None:
    raise AssertionError("a command that was not asked for is only listed in the help")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"govern {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Governance and monitoring of machine-learning models in production."""


def main() -> None:
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        build(asked)()
    except GovernError as error:
        fail(error)


if __name__ == "__main__":
    main()
