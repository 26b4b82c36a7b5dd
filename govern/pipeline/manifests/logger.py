"""The payload logger of Seldon Core v1 and KServe, whose events are what govern captures."""

from __future__ import annotations

from typing import Final

from govern.pipeline.manifests.manifest import Part

#: Where the events go and what is put beside them: govern's sink takes them as they come.
_SENT: Final = frozenset({"url", "metadataHeaders", "metadataAnnotations", "storage"})


def read_logger(component: Part) -> None:
    """Note a logger that leaves out a half of each inference."""
    logger = component.part("logger")
    if logger is None:
        return
    mode = logger.text("mode", "all")
    if mode != "all":
        why = f"mode {mode!r} leaves out half of each inference, which a detector needs"
        logger.lose("mode", "`mode` is not imported", why, "write mode: all")
    logger.rest("a logger", _SENT)
