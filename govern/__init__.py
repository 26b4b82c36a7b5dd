"""govern: governance and monitoring of machine-learning models in production."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("govern")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
