"""New rules without a restart: read again on SIGHUP and when the file changes.

What may change is what decides about records; addresses, sizes and folders need a restart. A file that is wrong is
refused as a whole, and the rules in force stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from govern.errors import ConfigError, GovernError
from govern.mirror.config import MirrorConfig, load

_log: Final = logging.getLogger(__name__)

#: The fields that a running process takes over.
RELOADED: Final = (
    "rules",
    "request_id_headers",
    "headers",
    "sampling_rate",
    "sampling",
    "redaction",
    "fan_out",
    "destinations",
)
#: How often to look whether the file has changed; Kubernetes itself takes up to a minute to renew a mounted ConfigMap.
_LOOK_EVERY_S: Final = 1.0


class Reload:
    """The source of a process's configuration.

    Args:
        path: the YAML file; None = there is nothing to read again.
        flags: as `load` took them.
        config: what it gave at the start.
    """

    def __init__(self, path: Path | None, flags: Mapping[str, object], config: MirrorConfig) -> None:
        self._path = path
        self._flags = flags
        self._config = config

    async def run(self, apply: Callable[[MirrorConfig], None]) -> None:
        """Hand each changed configuration to `apply`, until cancelled.

        Args:
            apply: takes the new rules over; a GovernError refuses them.
        """
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        state = None  # so that a change between the start's reading and the first look is seen
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), _LOOK_EVERY_S)
            found = await asyncio.to_thread(self._state)
            if asked.is_set() or (found != state and found is not None):
                asked.clear()
                state = found
                await self._read(apply)

    async def _read(self, apply: Callable[[MirrorConfig], None]) -> None:
        if self._path is None:
            _log.warning("there is no configuration file to read again")
            return
        try:
            found = await asyncio.to_thread(lambda: load(self._path, flags=self._flags))
            config = _with_rules_of(self._config, found)
            if config != self._config:
                apply(config)
        except GovernError as error:
            _log.error("the new configuration is refused, the rules in force stay: %s", error)
            return
        except Exception:  # noqa: BLE001 - see below
            # Whatever it is, it must not be the end of following the file, of which nobody would hear.
            _log.exception("the new configuration cannot be taken over, the rules in force stay")
            return
        left = [
            name
            for name in MirrorConfig.model_fields
            if name not in RELOADED and getattr(found, name) != getattr(config, name)
        ]
        if left:
            _log.warning("a change of %s takes effect at the next start", ", ".join(left))
        if config == self._config:
            _log.info("the rules are the same as before: %s", digest(config))
            return
        self._config = config
        _log.warning("new rules are taken over: %s", digest(config))

    def _state(self) -> tuple[int, int, int] | None:
        """What changes with the file, also where it is a link that is turned to another one; None without a file."""
        try:
            state = self._path.stat() if self._path is not None else None
        except OSError:  # in the middle of being replaced
            return None
        return None if state is None else (state.st_ino, state.st_mtime_ns, state.st_size)


def _with_rules_of(config: MirrorConfig, found: MirrorConfig) -> MirrorConfig:
    """
    Raises:
        ConfigError: the new rules do not go with a field that stays as it is.
    """
    values = {name: getattr(found if name in RELOADED else config, name) for name in MirrorConfig.model_fields}
    try:
        return MirrorConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "the new rules", why=error.errors()[0]["msg"], fix="change the field that they do not go with, and restart"
        ) from error


@contextlib.asynccontextmanager
async def reloading(reload: Reload, apply: Callable[[MirrorConfig], None]) -> AsyncIterator[None]:
    """Follow the configuration's changes for as long as the block runs."""
    task = asyncio.create_task(reload.run(apply))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def digest(config: MirrorConfig) -> str:
    """Names a configuration's rules: SHA-256 of their canonical JSON, secrets masked."""
    rules = config.model_dump(mode="json", include=set(RELOADED))
    return hashlib.sha256(json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
