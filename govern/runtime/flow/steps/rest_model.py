"""A model that is called over V2's REST.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md. Tensors are sent
as raw bytes where the server says that it reads them (`v2_binary.EXTENSION`), else as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import httpx

from govern.codecs import v2, v2_binary
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, DecodeError, Unavailable
from govern.pipeline.spec import ModelSpec
from govern.runtime.flow.errors import Unreachable
from govern.runtime.flow.message import Call

#: How much of a refusal is passed on: its reason, not its payload.
_REASON_CHARS: Final = 300
#: Statuses by which servers refuse what they were sent.
_REFUSED: Final = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY})
#: Statuses by which a server, or the gateway before it, says that the model is not there now.
_AWAY: Final = frozenset(
    {
        httpx.codes.TOO_MANY_REQUESTS,
        httpx.codes.BAD_GATEWAY,
        httpx.codes.SERVICE_UNAVAILABLE,
        httpx.codes.GATEWAY_TIMEOUT,
    }
)


class RestModel:
    """Keeps connections open between calls: those of the client, which its owner closes."""

    def __init__(self, step: str, spec: ModelSpec, client: Callable[[], httpx.AsyncClient]) -> None:
        """
        Args:
            client: gives the client, at the first call: thousands of pipelines may be loaded that are never asked.
        """
        assert spec.url is not None, "a model that is not called is no step of a flow"
        name, version = spec.name or step, spec.version
        path = f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
        self._server = spec.url.rstrip("/") + "/v2"
        self._url = spec.url.rstrip("/") + path + "/infer"
        self._timeout_s = spec.timeout_ms / 1000
        self._client = client
        self._binary: bool | None = None

    async def __call__(self, call: Call, /) -> list[Tensor]:
        """
        Raises:
            BadInput: the model refuses what it was sent.
            Unreachable: there is no connection to it, or it says that it is away.
            Unavailable: it does not answer in time, or answers what is no V2 response.
        """
        tensors = call.tensors
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._post(tensors, call.request_id)
        except TimeoutError as error:
            why = f"no answer within {self._timeout_s:g} s"
            raise self._away(why, "see what the model waits for, or raise the step's timeoutMs") from error
        except httpx.HTTPError as error:
            why = f"{type(error).__name__}: {error}"
            fix = "start the model server, or correct the step's url"
            raise Unreachable(f"model at {self._url}", why=why, fix=fix) from error
        if response.status_code in _REFUSED:
            raise BadInput(
                f"the model at {self._url} refused the request",
                why=_reason(response),
                fix="send what the model takes, or give its inputs their names in tensorMap",
            )
        if response.status_code != httpx.codes.OK:
            why = f"HTTP {response.status_code}: {_reason(response)}"
            kind = Unreachable if response.status_code in _AWAY else Unavailable
            fix = "see the model server's log; correct the model's name, its version or the url"
            raise kind(f"model at {self._url}", why=why, fix=fix)
        try:
            size = v2_binary.json_size(response.headers)
            return list(v2.decode_response(response.content, json_size=size).outputs)
        except DecodeError as error:
            raise self._away(f"its answer cannot be read: {error}", "call a server of V2's REST at this url") from error

    async def _post(self, tensors: tuple[Tensor, ...], request_id: str) -> httpx.Response:
        client = self._client()
        if self._binary is None:
            self._binary = _reads_binary(await client.get(self._server))
        if not self._binary:
            body, headers = v2.encode_request(tensors, request_id=request_id), {"content-type": "application/json"}
        else:
            body, size = v2.encode_binary_request(tensors, request_id=request_id)
            headers = {"content-type": "application/octet-stream", v2_binary.HEADER: str(size)}
        return await client.post(self._url, content=body, headers=headers)

    def _away(self, why: str, fix: str) -> Unavailable:
        return Unavailable(f"model at {self._url}", why=why, fix=fix)


def _reads_binary(response: httpx.Response) -> bool:
    """Whether a server's metadata names the extension; one that has no metadata is sent JSON, which all read."""
    try:
        extensions = response.json().get("extensions") if response.status_code == httpx.codes.OK else None
    except (ValueError, AttributeError):
        return False
    return isinstance(extensions, list) and v2_binary.EXTENSION in extensions


def _reason(response: httpx.Response) -> str:
    """The protocol's `error` member, or the start of whatever came."""
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    error = document.get("error") if isinstance(document, dict) else None
    return str(error or response.text or response.reason_phrase)[:_REASON_CHARS]
