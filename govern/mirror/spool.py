"""The writing side of the spool: an append is a copy of memory, and nothing in it can wait.

Segments are made ahead of need by a thread of their own, because making one asks the kernel for memory. When none is
ready (the folder's limit is reached, the file system is full) a record is dropped and counted: the request path
never waits for room.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from govern.errors import Unavailable
from govern.mirror import folder
from govern.mirror.agent import AgentFile, AgentInfo, Counts
from govern.mirror.cipher import OVERHEAD_BYTES, FrameCipher
from govern.mirror.segment import ENCRYPTED, HEADER_BYTES, SegmentWriter, frame_bytes

_log: Final = logging.getLogger(__name__)

#: Segments kept ready behind the current one: the maker may wait some 50 ms for Python's lock under full load, in
#: which a proxy can fill one segment of 4 MiB, hardly two.
_AHEAD: Final = 2
#: How soon to look again for room when there was none.
_RETRY_S: Final = 0.05


class SpoolWriter:
    """Appends records to one agent's segments. One thread appends; `close` when done.

    Args:
        spool_dir: the folder, shared by the agents of a pod.
        segment_bytes: size of one segment; a longer record cannot be written and is dropped.
        spool_bytes: what the segments of all agents may take in the folder together. Each agent looks before it
            makes a segment, so agents that look at the same moment can exceed it by one segment each.
        cipher: encrypts what is appended, where the folder is on a disk.
        on_segment: called with each segment's path before it is used, from the thread that makes segments; an
            OSError of it is as if there were no room.

    Raises:
        Unavailable: the folder is not usable, or has no room for the agent's own file.
    """

    def __init__(
        self,
        spool_dir: Path,
        info: AgentInfo,
        *,
        segment_bytes: int,
        spool_bytes: int,
        cipher: FrameCipher | None = None,
        on_segment: Callable[[Path], None] | None = None,
    ) -> None:
        folder.make_private(spool_dir)
        self.info = info
        self._on_segment = on_segment
        self._folder = spool_dir
        self._segment_bytes = segment_bytes
        self._spool_bytes = spool_bytes
        self._cipher = cipher
        self._captured = self._sampled_out = self._dropped = 0
        self._next_number = 0
        try:
            self._file = AgentFile(spool_dir, info)
        except OSError as error:
            raise Unavailable(
                f"spool folder {spool_dir}",
                why=f"no agent file can be made in it: {error.strerror}",
                fix="free space there (govern mirror spool ls), or name another folder (spool_dir)",
            ) from error
        self._ready: deque[SegmentWriter] = deque()
        self._filled: deque[SegmentWriter] = deque()
        self._current: SegmentWriter | None = None
        self._full_logged = False
        #: True asks the maker to look again, False to end.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._make_segment()
        self._calls.put(True)
        self._maker = threading.Thread(target=self._keep_ready, name="govern-spool", daemon=True)
        self._maker.start()

    @property
    def next_seq(self) -> int:
        """The seq of the next record that is captured."""
        return self._captured

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def ahead(self) -> int:
        """Segments that are ready behind the current one."""
        return len(self._ready)

    @property
    def counts(self) -> Counts:
        return Counts(self._captured, self._sampled_out, self._dropped)

    @property
    def writing(self) -> int:
        """Number of the segment that the last record went to, or the first one will go to."""
        return 0 if self._current is None else self._current.number

    def room_for(self, payload_bytes: int) -> bool:
        """Whether the next `append` of so much will find room; for callers that can keep a record themselves."""
        needed = frame_bytes(payload_bytes + (0 if self._cipher is None else OVERHEAD_BYTES))
        if self._current is not None and needed <= self._current.room:
            return True
        return bool(self._ready) and HEADER_BYTES + needed <= self._segment_bytes

    def append(self, payload: bytes) -> bool:
        """Capture a record under `next_seq`; False when there is no room, and it is counted as dropped."""
        if self._cipher is not None:
            payload = self._cipher.close(self._captured, payload)
        current = self._current
        if current is None or not current.append(self._captured, payload):
            fits = HEADER_BYTES + frame_bytes(len(payload)) <= self._segment_bytes
            if not (fits and self._roll() and self._current and self._current.append(self._captured, payload)):
                self.count_dropped()
                return False
        self._captured += 1
        self._file.set_captured(self._captured)
        return True

    def count_sampled_out(self) -> None:
        self._sampled_out += 1
        self._file.set_sampled_out(self._sampled_out)

    def count_dropped(self) -> None:
        self._dropped += 1
        self._file.set_dropped(self._dropped)

    def show_refused(self, refused: bool) -> None:
        """Show whether the agent's configuration file, as it is now, is refused; from any thread, at any time."""
        with contextlib.suppress(ValueError):  # it is closed
            self._file.set_refused(refused)

    def close(self) -> None:
        """Seal what was written and give up the agent's lock."""
        self._calls.put(False)
        self._maker.join()
        if self._current is not None:
            self._current.seal()
            self._current.close()
            self._current = None
        for unused in self._ready:
            unused.close()
            unused.path.unlink(missing_ok=True)
        self._ready.clear()
        self._file.close()

    def _roll(self) -> bool:
        """Put the next ready segment in the current one's place; False when none is ready."""
        try:
            following = self._ready.popleft()
        except IndexError:
            return False
        if self._current is not None:
            self._current.seal()
            self._filled.append(self._current)
        following.begin(self._captured)
        self._current = following
        self._calls.put(True)
        return True

    def _keep_ready(self) -> None:
        timeout_s: float | None = None
        while True:
            try:
                if not self._calls.get(timeout=timeout_s):
                    break
            except queue.Empty:
                pass
            while self._filled:
                self._filled.popleft().close()
            timeout_s = None
            while len(self._ready) < _AHEAD:
                if not self._make_segment():
                    timeout_s = _RETRY_S
                    break
        while self._filled:
            self._filled.popleft().close()

    def _make_segment(self) -> bool:
        try:
            held = folder.held_bytes(self._folder)
            if held + self._segment_bytes > self._spool_bytes:
                raise OSError(f"the segments hold {held} of {self._spool_bytes} bytes (spool_bytes)")
            path = folder.segment_path(self._folder, self.info.agent, self._next_number)
            segment = SegmentWriter(
                path,
                agent=self.info.agent,
                number=self._next_number,
                size=self._segment_bytes,
                flags=0 if self._cipher is None else ENCRYPTED,
            )
            if self._on_segment is not None:
                self._on_segment(path)
        except OSError as error:
            if not self._full_logged:
                self._full_logged = True
                _log.warning("no further spool segment in %s: %s", self._folder, error)
            return False
        self._full_logged = False
        self._next_number += 1
        self._ready.append(segment)
        return True
