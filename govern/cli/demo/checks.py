"""What can be refused before anything is started."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from audit.database import open_engine
from govern.bus import open_bus
from govern.errors import MissingExtra

#: A module of each extra that the demo's processes need.
EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "mirror": ("httptools", "uvloop"),
    "explain": ("shap",),
    "audit": ("sqlalchemy", "alembic", "cryptography", "rfc8785", "jwt"),
}


def check_extras() -> None:
    """
    Raises:
        MissingExtra: the demo runs every part of govern, and one cannot be imported.
    """
    for extra, modules in EXTRAS.items():
        if any(find_spec(name) is None for name in modules):
            raise MissingExtra(extra, needed_by="govern demo")


def check_urls(bus_url: str, database_url: str) -> None:
    """
    Raises:
        ConfigError: one is of no known form. Nothing is connected yet.
    """
    open_bus(bus_url)
    open_engine(database_url, "read").dispose()
