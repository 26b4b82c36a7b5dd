"""V2Predictor: a model behind the Open Inference Protocol V2 (REST), asked in batches.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, "Inference".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt

from explainers.deadline import NEVER, Deadline, DeadlinePassed
from govern.codecs import v2
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, Unavailable
from govern.frame import Frame

#: Marks traffic that no caller caused: it is captured as synthetic and never reaches a detector.
SYNTHETIC: Final = {"govern-synthetic": "1", "content-type": "application/json"}
#: Rows of one call: about 200 kB of JSON for 16 features; a model server answers it in tens of milliseconds.
BATCH_ROWS: Final = 1000
#: One call; a batch that takes longer will not be faster the second time.
TIMEOUT_S: Final = 10.0
#: Wait before asking again: doubles from the first to the last.
_BACKOFF_S: Final = (0.1, 2.0)
#: Calls for one batch before the model counts as away, whatever time is left.
_ATTEMPTS: Final = 6
#: Answers that another try may change: too many requests, a gateway without its model, a model that is loading.
_PASSING: Final = frozenset({429, 502, 503, 504})
#: How much of a refusal is passed on: its reason, not its payload.
_REASON_CHARS: Final = 300


class V2Predictor:
    """A `Predictor` over HTTP. Safe for several threads.

    Args:
        url: the server's base URL, such as `http://model:8080`; `/v2/models/...` is appended.
        model, version: whom to ask; without a version the server chooses.
        output: name of the output tensor; "" = the only one there is.
        digest: of the model file behind the server where it is known; else one of model and version.
        client: of the caller, who closes it; its base URL and timeout are not used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        client: httpx.Client,
        version: str = "",
        output: str = "",
        digest: str = "",
        batch_rows: int = BATCH_ROWS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        path = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
        self._url = url.rstrip("/") + path + "/infer"
        self._output = output
        self._digest = digest or hashlib.sha256(f"{model}@{version}".encode()).hexdigest()
        self._batch_rows = batch_rows
        self._timeout_s = timeout_s
        self._client = client

    @property
    def digest(self) -> str:
        return self._digest

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> npt.NDArray[np.float64]:
        return np.concatenate([self._ask(batch, deadline) for batch in self._batches(frame)])

    def _batches(self, frame: Frame) -> Iterator[Frame]:
        for start in range(0, len(frame), self._batch_rows):
            yield frame.take(slice(start, start + self._batch_rows))

    def _ask(self, batch: Frame, deadline: Deadline) -> npt.NDArray[np.float64]:
        wanted = (self._output,) if self._output else ()
        body = v2.encode_request(to_tensors(batch), outputs=wanted)
        return self._read(self._post(body, deadline), len(batch))

    def _post(self, body: bytes, deadline: Deadline) -> bytes:
        wait_s, last = _BACKOFF_S[0], ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                deadline.sleep(wait_s)
                wait_s = min(_BACKOFF_S[1], wait_s * 2)
            if deadline.passed:
                raise DeadlinePassed(f"asking {self._url}", last=last)
            timeout_s = min(self._timeout_s, deadline.remaining_s)
            try:
                response = self._client.post(self._url, content=body, headers=SYNTHETIC, timeout=timeout_s)
            except httpx.TransportError as error:
                last = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == httpx.codes.OK:
                return response.content
            last = f"HTTP {response.status_code}: {_reason(response)}"
            if response.status_code not in _PASSING:
                raise self._refused(response.status_code, last)
        raise Unavailable(
            f"model at {self._url}",
            why=last,
            fix="start the model, or correct its URL; the explanation can be asked again",
        )

    def _refused(self, status: int, why: str) -> BadInput | Unavailable:
        if status in (400, 422):
            fix = "compare the schema's features and datatypes with the model's metadata"
            return BadInput(f"the model at {self._url} refused the rows", why=why, fix=fix)
        return Unavailable(f"model at {self._url}", why=why, fix="correct the URL, the model's name or its version")

    def _read(self, body: bytes, rows: int) -> npt.NDArray[np.float64]:
        tensor = self._tensor(v2.decode_response(body).outputs)
        if tensor.data.dtype.kind not in "fiub" or tensor.data.ndim == 0 or len(tensor.data) != rows:
            raise BadInput(
                f"model at {self._url}: output {tensor.name!r} ({tensor.datatype}, shape {list(tensor.data.shape)})",
                why=f"{rows} rows were sent, and one row of numbers is needed for each",
                fix="name another output tensor in the explainer's target",
            )
        outputs = tensor.data.reshape(rows, -1).astype(np.float64)
        if not np.isfinite(outputs).all():
            raise BadInput(
                f"model at {self._url}: output {tensor.name!r} holds NaN or infinity",
                why="an explanation averages the model's answers",
                fix="mend the model, or name another output tensor in the explainer's target",
            )
        return outputs

    def _tensor(self, outputs: tuple[Tensor, ...]) -> Tensor:
        found = [one for one in outputs if one.name == self._output or not self._output]
        if len(found) != 1:
            raise BadInput(
                f"model at {self._url}: output {self._output or 'to explain'!r}",
                why=f"it answers {', '.join(one.name for one in outputs)}",
                fix="name one of them in the explainer's target (--output)",
            )
        return found[0]


def _reason(response: httpx.Response) -> str:
    """The protocol's `error` member, or the start of whatever came."""
    try:
        document = json.loads(response.content)
    except ValueError:
        return response.text[:_REASON_CHARS]
    error = document.get("error", "") if isinstance(document, dict) else ""
    return str(error)[:_REASON_CHARS] or response.reason_phrase
