"""A recorder inside a process of other people's."""

from __future__ import annotations

import copy
import logging
import os
import time
from typing import Final

from govern.errors import Unavailable
from govern.mirror.config import MirrorConfig
from govern.mirror.recorder import Recorder, open_recorder
from govern.mirror.reload import Reload, Watch

_log: Final = logging.getLogger(__name__)

#: How soon to try a spool again that could not be opened.
_TRY_AGAIN_S: Final = 10.0


class Guest:
    """Opens a recorder when the first event arrives, so after any fork: each process becomes an agent of its own.

    While the spool's folder is not usable there is none, and the host works uncaptured: the log says so, and it is
    tried again.

    Args:
        config: `follow(path)`, and new rules in the file are taken over; or one that stays.
        source: how the inferences come, as `Capture.source` names it.
    """

    def __init__(self, config: MirrorConfig | Reload, *, source: str) -> None:
        # A copy: whoever else was given the same has read other states of the file.
        self._config = copy.copy(config) if isinstance(config, Reload) else Reload(None, {}, config)
        self._source = source
        self._watch: Watch | None = None
        self._recorder: Recorder | None = None
        self._pid = 0
        self._try_again = 0.0

    def recorder(self) -> Recorder | None:
        """This process's recorder; never raises."""
        pid = os.getpid()
        if self._recorder is not None and self._pid == pid:
            return self._recorder
        self._recorder = None
        if time.monotonic() >= self._try_again:
            try:
                self._recorder = open_recorder(self._config.config, source=self._source)
                self._watch = Watch(self._config, self._recorder)
                self._pid = pid
            except Exception as error:  # noqa: BLE001 - a failure of capture must never reach the host
                self._try_again = time.monotonic() + _TRY_AGAIN_S
                foreseen = isinstance(error, Unavailable)
                _log.error("inferences are not captured: %s", error, exc_info=not foreseen)
        return self._recorder

    def close(self) -> None:
        """Seal what this process wrote; what comes after is not captured."""
        if self._watch is not None:
            self._watch.end()
        if self._recorder is not None and self._pid == os.getpid():
            self._recorder.close()
