"""Frames of the spool as the records that may leave the pod's memory: opened, read, redacted."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from govern.mirror.captured import Captured, CapturedFeedback, decode
from govern.mirror.cipher import FrameCipher, known_key
from govern.mirror.config import MirrorConfig
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.segment import ENCRYPTED, REDACTED, Frame

_log: Final = logging.getLogger(__name__)


class Leaving:
    """Reads the frames of all agents of a spool.

    Attributes:
        redactor: what is applied from now on; another one may take its place at any time. What was redacted
            before, in a segment on disk, is not redacted again.
    """

    def __init__(self, config: MirrorConfig, redactor: Redactor) -> None:
        self.redactor = redactor
        self._config = config
        self._key: bytes | None = None
        self._ciphers: dict[str, FrameCipher] = {}

    def record(self, agent: str, frame: Frame) -> Captured | None:
        """The frame's record; None when it cannot be read, or is none of this agent's (found behind damage)."""
        payload: bytes | None = frame.payload
        if frame.flags & ENCRYPTED:
            payload = self._open(agent, frame)
            if payload is None:
                _log.error("agent %s: record %d cannot be decrypted: its key is gone", agent, frame.seq)
                return None
        try:
            record = decode(payload or b"")
        except msgspec.DecodeError as error:
            _log.error("agent %s: record %d cannot be read: %s", agent, frame.seq, error)
            return None
        if record.capture.agent != agent or record.capture.seq != frame.seq:
            return None
        if frame.flags & REDACTED:
            return record
        if isinstance(record, CapturedFeedback):
            return self.redactor.of_feedback(record)
        return self.redactor.of(record)

    def forget(self, agent: str) -> None:
        self._ciphers.pop(agent, None)

    def _open(self, agent: str, frame: Frame) -> bytes | None:
        if agent not in self._ciphers:
            self._key = self._key or known_key(self._config)
            if self._key is None:
                return None
            self._ciphers[agent] = FrameCipher(self._key, agent)
        return self._ciphers[agent].open(frame.seq, frame.payload)
