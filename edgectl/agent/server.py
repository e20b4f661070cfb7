"""What the agent asks the inference server of this device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from edgectl.errors import ConfigError, HealthError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK = 200
_REFUSED, _TOO_LARGE, _BUSY = 400, 413, 503
_MAX_ANSWER = 4 << 20
_TIMEOUT = 10.0
_BEST_CLASS = 1


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The server's answer to what it serves."""

    slot: str | None
    """Hex digest of the slot that answers requests."""
    wanted: str | None
    state: str
    """`ready`, `loading`, `failed` or `empty`."""
    error: str | None
    requests: int
    errors: int
    """Requests that failed on the server's side since the slot took over."""


class RefusedSampleError(Exception):
    """The server says that a sample is nothing that the model takes."""


class BusyServerError(ServerUnavailableError):
    """The server has too many other requests, and may answer a little later."""


class Server:
    """`edgectl serve` at a base URL."""

    def __init__(self, url: str, timeout: float = _TIMEOUT) -> None:
        parts = urlsplit(url)
        self._url = url
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._timeout = timeout

    def status(self) -> SlotStatus:
        """What it serves; raises ServerUnavailableError if it does not answer sensibly."""
        _, value = self._request("GET", "/edgectl/v1/slot")
        try:
            return SlotStatus(
                value["slot"],
                value["wanted"],
                str(value["state"]),
                value["error"],
                int(value["requests"]),
                int(value["errors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._unavailable(f"its slot status is malformed: {error!r}") from error

    def classify(self, model: str, version: str, input_name: str, output: str, image: bytes) -> str:
        """The best class of an encoded image: its label, or its index if it has no label.

        The image goes as a BYTES tensor in the binary form of the Open Inference Protocol, and
        the classification extension gives `score:index[:label]`. Raises RefusedSampleError and
        ConfigError (too large) if the image is at fault, HealthError if the model is,
        BusyServerError if the server has no time for it now, and ServerUnavailableError if it does
        not answer.
        """
        header = json.dumps(
            {
                "inputs": [
                    {
                        "name": input_name,
                        "shape": [1],
                        "datatype": "BYTES",
                        "parameters": {"binary_data_size": len(image) + 4},
                    }
                ],
                "outputs": [{"name": output, "parameters": {"classification": _BEST_CLASS}}],
            }
        ).encode()
        body = header + len(image).to_bytes(4, "little") + image
        path = f"/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/infer"
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, value = self._request("POST", path, body, headers)
        try:
            if status == _BUSY:
                raise BusyServerError(
                    f"the inference server at {self._url} is busy: {value['error']}",
                    hint="it has more requests than it can answer; the agent tries again",
                )
            if status == _TOO_LARGE:
                raise ConfigError(
                    f"a sample of {model} has {len(image)} bytes, too many for the server",
                    hint="take it out of the samples, or give `edgectl serve` a larger --max-body",
                )
            if status == _REFUSED:
                raise RefusedSampleError(str(value["error"]))
            if status != _OK:
                raise HealthError(f"{model} {version} does not answer a sample: {value['error']}")
            _, index, *label = str(value["outputs"][0]["data"][0]).split(":", 2)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise HealthError(f"{model} {version} gives a malformed answer: {error!r}") from error
        return label[0] if label else index

    def _request(
        self, method: str, path: str, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:  # fmt: skip
        import http.client  # with all of `email`, which an idle agent has no use for

        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            data = answer.read(_MAX_ANSWER + 1)
            if len(data) > _MAX_ANSWER:
                raise self._unavailable(f"its answer is over {_MAX_ANSWER} bytes")
            return answer.status, json.loads(data)
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(str(error) or repr(error)) from error
        except ValueError as error:
            raise self._unavailable(f"its answer is not JSON: {error}") from error
        finally:
            connection.close()

    def _unavailable(self, why: str) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"the inference server at {self._url} does not answer: {why}",
            hint="start it with `edgectl serve`, or correct server.url in device.yaml",
        )
