"""Reading files and publishing what they say, exactly once.

Records, dead letters and how far each file has been read are one transaction. A file is known by the digest of its
content, so a run that is repeated, or goes on after a kill, publishes no row twice and leaves none out.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from govern.backfill.inference import inference_of, together
from govern.backfill.ledger import Ledger
from govern.backfill.row import Call, Format, HalfCall
from govern.bus.protocol import Message
from govern.errors import BadInput, DecodeError
from govern.mirror.agent import agent_name
from govern.mirror.config import MirrorConfig
from govern.mirror.join import Joiner, Pair, Side
from govern.mirror.place import Place, Stored
from govern.mirror.redaction.redactor import Redactor
from govern.record import Capture, DeadLetter, Inference
from govern.runtime import dead_letters

R = TypeVar("R")

#: One transaction carries at most about this much: tens of ms on the bus, a few MB in memory.
_BATCH_ROWS: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024
#: What halves may take in memory that wait for the other one; past it the oldest are recorded alone.
_OPEN_BYTES: Final = 256 * 1024 * 1024
_OPEN_HALVES: Final = 1_000_000
#: A dead letter keeps this much of a row: it has to fit into a message of the bus.
_LETTER_BYTES: Final = 512 * 1024


@dataclass
class Report:
    """What a run did."""

    files: int = 0
    known_files: int = 0
    rows: int = 0
    records: int = 0
    alone: int = 0
    sampled_out: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A half in the join."""

    half: HalfCall
    file: str
    row: int

    @property
    def key(self) -> Hashable:
        return self.half.key

    @property
    def side(self) -> Side:
        return self.half.side

    @property
    def t_ms(self) -> int:
        return self.half.call.t_request // 1_000_000

    @property
    def n_bytes(self) -> int:
        return _size(self.half.call)


class Backfill(Generic[R]):
    """One run over files of one format.

    Args:
        service_named: the configuration names the service; else the rows do, where they can.
        progress: called, now and then, with the bytes of files done since the last call, and all rows so far.
    """

    def __init__(
        self,
        config: MirrorConfig,
        format_: Format[R],
        ledger: Ledger,
        *,
        service_named: bool = False,
        progress: Callable[[int, int], None] = lambda n_bytes, rows: None,
    ) -> None:
        self._config = config
        self._format = format_
        self._ledger = ledger
        self._service_named = service_named
        self._redactor = Redactor(config.redaction, body_bytes=config.body_bytes)
        self._progress = progress
        self._agent = agent_name(config.pod)
        self._joiner = Joiner[_Waiting](limit_ms=float("inf"), max_halves=_OPEN_HALVES, max_bytes=_OPEN_BYTES)
        self._places: dict[str, Place] = {}
        self._scattered: set[str] = set()  # files whose place is too long for a message of the bus
        self._records: list[Inference] = []
        self._letters: list[DeadLetter] = []
        self._rows = self._bytes = 0
        self.report = Report()

    async def run(self, files: Sequence[Path]) -> Report:
        """Read the files in order.

        Raises:
            BadInput: one is no file of the format. What came before it is published; a later run goes on from there.
            BusError: the bus refused; likewise.
        """
        for path in files:
            try:
                await self._read(path)
            except BadInput:
                await self._commit()
                raise
        for pair in self._joiner.rest():
            self._close(pair)
            await self._commit_if_full()
        await self._commit()
        return self.report

    async def _read(self, path: Path) -> None:
        file, size = _identity(path)
        self.report.files += 1
        stored = self._ledger.stored(file)
        if file in self._places or (stored is not None and stored.whole and not stored.open):
            self.report.known_files += 1
        else:
            place = self._places[file] = Place(stored or Stored())
            for row, raw in enumerate(self._format.rows(path)):
                if place.meets(row, 0):
                    self._take(raw, path, file, row)
                    await self._commit_if_full()
            place.ends()
        self._progress(size, self.report.rows)

    def _take(self, raw: R, path: Path, file: str, row: int) -> None:
        self._rows += 1
        self.report.rows += 1
        try:
            item = self._format.parse(raw)
        except DecodeError as error:
            self._refuse(error, self._format.original(raw), f"{path.name}@{file[:16]}", row)
            return
        if isinstance(item, Call):
            self._record(item, file, row)
            return
        pair = self._joiner.add(_Waiting(item, file, row))
        if pair is None:
            self._places[file].waits(row)
            self._look_at(file)
        else:
            self._close(pair)
        for left_alone in self._joiner.expire(0):
            self._close(left_alone)
        # A place is one message of the bus: past its limit the oldest halves are recorded alone.
        while self._scattered and (oldest := self._joiner.oldest()):
            self._close(oldest)
            for each in tuple(self._scattered):
                self._look_at(each)

    def _look_at(self, file: str) -> None:
        """Note whether a file's place has become too long for the bus."""
        if self._places[file].n_bytes > self._config.message_bytes:
            self._scattered.add(file)
        else:
            self._scattered.discard(file)

    def _close(self, pair: Pair[_Waiting]) -> None:
        for waiting in pair.halves:
            self._places[waiting.file].done(waiting.row)
            self._look_at(waiting.file)
        first = pair.first
        if pair.request is not None and pair.response is not None:
            call = together(pair.request.half.call, pair.response.half.call)
        else:
            call = first.half.call
        self._record(call, first.file, first.row)

    def _record(self, call: Call, file: str, row: int) -> None:
        capture = Capture(agent=self._agent, pod=self._config.pod, seq=self.report.records, source="backfill")
        record, kept = inference_of(call, self._config, capture, file=file, row=row, service_named=self._service_named)
        if not kept:
            self.report.sampled_out += 1
            return
        self._bytes += _size(call)
        self.report.records += 1
        self.report.alone += bool(record.missing)
        self._records.append(self._redactor.of(record))

    def _refuse(self, error: DecodeError, original: bytes, origin: str, row: int) -> None:
        self.report.refused[error.why] += 1
        self._bytes += len(original)
        message = Message(
            topic=f"{self._format.name}:{origin}",
            partition=0,
            offset=row,
            timestamp_ms=time.time_ns() // 1_000_000,
            key=b"",
            # What cannot be parsed cannot be redacted: where there are rules, only its digest leaves.
            value=b"" if self._redactor.active else original[:_LETTER_BYTES],
            headers=(("sha256", hashlib.sha256(original).hexdigest().encode()),),
        )
        self._letters.append(dead_letters.of_message(message, error, namespace=self._config.namespace))

    async def _commit_if_full(self) -> None:
        if self._rows >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            await self._commit()

    async def _commit(self) -> None:
        changed = {file: place for file, place in self._places.items() if place.changed}
        if changed:
            await self._ledger.commit(
                self._records, self._letters, {file: place.stored() for file, place in changed.items()}
            )
        for place in changed.values():
            place.changed = False
        self._records, self._letters = [], []
        self._rows = self._bytes = 0
        self._progress(0, self.report.rows)


def _identity(path: Path) -> tuple[str, int]:
    """A file's digest and size."""
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest(), path.stat().st_size
    except OSError as error:
        raise BadInput(f"{path} cannot be read", why=str(error), fix="name an existing file") from error


def _size(call: Call) -> int:
    return sum(len(body.data) for body in (call.request, call.response) if body is not None)
