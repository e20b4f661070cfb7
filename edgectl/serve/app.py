"""The server's routes, as an ASGI application.

The Open Inference Protocol with what Triton's clients ask for beyond it, `/metrics` for
Prometheus, and `/edgectl/v1/slot` for the agent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edgectl import __version__
from edgectl.engine.errors import InputError
from edgectl.engine.transforms import encoded_kind
from edgectl.serve import metadata, metrics
from edgectl.serve.http import (
    BlamelessError,
    BodyReader,
    ClientGoneError,
    HttpError,
    Response,
    header,
)
from edgectl.serve.pool import QueueFullError
from edgectl.serve.protocol import HEADER_LENGTH, encode_response, parse_request, raw_request

if TYPE_CHECKING:
    from edgectl.serve.deployment import Deployment
    from edgectl.serve.http import Headers, Receive, Scope, Send
    from edgectl.serve.model import ServedModel
    from edgectl.serve.pool import InferencePool
    from edgectl.serve.protocol import InferRequest

_QUICK_SECONDS = 0.0005
_QUICK_BYTES = 16 << 10

_RETRY: Headers = ((b"retry-after", b"1"),)
_HEADER_LENGTH = HEADER_LENGTH.encode()

_log = logging.getLogger(__name__)


class App:
    """Answers HTTP requests from whatever the deployment serves at that moment."""

    def __init__(
        self,
        deployment: Deployment,
        pool: InferencePool,
        bodies: BodyReader,
        *,
        deadline: float,
    ) -> None:
        self._deployment = deployment
        self._pool = pool
        self._bodies = bodies
        self._deadline = deadline
        self._metrics = metrics.Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        path = [unquote(part) for part in scope["raw_path"].decode().strip("/").split("/")]
        try:
            response = await self._route(scope, path, receive)
        except HttpError as error:
            response = Response.error(error)
        except ClientGoneError:
            return
        await response.send(send)

    async def _route(self, scope: Scope, path: list[str], receive: Receive) -> Response:
        match path:
            case ["v2", "models", name, "infer"]:
                _allow(scope, "POST")
                return await self._infer(scope, name, None, receive)
            case ["v2", "models", name, "versions", version, "infer"]:
                _allow(scope, "POST")
                return await self._infer(scope, name, version, receive)
            case ["v2", "repository", "index"]:
                _allow(scope, "POST")
                return Response.json(metadata.index(self._models()))
        response = self._about(path)
        if response is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing at {scope['path'][:200]}")
        _allow(scope, "GET", "HEAD")
        return response

    def _about(self, path: list[str]) -> Response | None:
        """What is only read; None if there is no such thing."""
        match path:
            case ["v2"]:
                return Response.json(metadata.server(__version__))
            case ["v2", "health", "live"]:
                return Response.json({"live": True})
            case ["v2", "health", "ready"]:
                ready = self._deployment.serving is not None
                return Response.json({"ready": ready}, 200 if ready else 400)
            case ["v2", "models", name, *rest]:
                return self._about_model(name, rest)
            case ["metrics"]:
                return self._render_metrics()
            case ["edgectl", "v1", "slot"]:
                return Response.json(self._deployment.status())
        return None

    def _about_model(self, name: str, rest: list[str]) -> Response:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        model = _find(self._models(), name, version)
        match rest:
            case []:
                return Response.json(metadata.model(model.signature))
            case ["ready"]:
                return Response.json({"name": model.name, "ready": True})
            case ["config"]:
                return Response.json(metadata.config(model.signature))
        raise HttpError(HTTPStatus.NOT_FOUND, f"model {name!r} has no {'/'.join(rest)[:200]!r}")

    async def _infer(
        self, scope: Scope, name: str, version: str | None, receive: Receive
    ) -> Response:
        started = time.perf_counter()
        serving = self._deployment.serving
        labels = {"model": "", "version": ""}
        failed = False
        try:
            if serving is None:
                raise HttpError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "no model is loaded yet", headers=_RETRY
                )
            model = _find(serving.models, name, version)
            labels = {"model": model.name, "version": model.version}
            response = await self._answer(scope, model, receive, labels)
        except HttpError as error:
            response = Response.error(error)
            failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            failed &= not isinstance(error, BlamelessError)
        except ClientGoneError:
            self._metrics.requests.add(**labels, code="499")
            raise
        self._metrics.requests.add(**labels, code=str(int(response.status)))
        if response.status == HTTPStatus.OK:
            self._metrics.request_seconds.observe(time.perf_counter() - started, **labels)
        if serving is not None:
            serving.requests += 1
            serving.errors += failed
        return response

    async def _answer(
        self, scope: Scope, model: ServedModel, receive: Receive, labels: dict[str, str]
    ) -> Response:
        """Read, infer, encode; whatever is wrong with the request becomes a 4xx HttpError, and only
        what goes wrong after it was parsed is the model's fault."""
        headers = scope["headers"]
        try:
            async with self._bodies.read(headers, receive) as body:
                request = _parse(model, headers, body)
                answer, length, seconds = await self._run(model, request, len(body))
        except InputError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except (HttpError, ClientGoneError):
            raise
        except Exception as error:
            _log.exception("a request to model %s %s was not read", model.name, model.version)
            raise BlamelessError(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed to read the request"
            ) from error
        self._metrics.engine_seconds.observe(seconds, **labels)
        if length is None:
            return Response(HTTPStatus.OK, answer)
        return Response(
            HTTPStatus.OK,
            answer,
            b"application/octet-stream",
            ((_HEADER_LENGTH, b"%d" % length),),
        )

    async def _run(
        self, model: ServedModel, request: InferRequest, size: int
    ) -> tuple[bytes, int | None, float]:
        """Infer and encode, here or on a thread; raises InputError, and HttpError for the rest."""
        try:
            if self._is_quick(model, request, size):
                return _infer_and_encode(model, request)
            return await self._run_in_pool(model, request)
        except (InputError, HttpError):
            raise
        except Exception as error:
            _log.exception("model %s %s failed to answer", model.name, model.version)
            raise HttpError(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"model {model.name!r} failed to answer"
            ) from error

    def _is_quick(self, model: ServedModel, request: InferRequest, size: int) -> bool:
        """Whether to infer right here on the event loop: nobody notices half a millisecond, while
        the way to a thread and back would cost a small model more than the inference itself."""
        return (
            size <= _QUICK_BYTES
            and self._pool.pending == 0
            and model.expected_seconds(request) <= _QUICK_SECONDS
        )

    async def _run_in_pool(
        self, model: ServedModel, request: InferRequest
    ) -> tuple[bytes, int | None, float]:
        seconds = min(request.timeout or self._deadline, self._deadline)
        try:
            async with asyncio.timeout(seconds):
                return await self._pool.run(partial(_infer_and_encode, model, request))
        except QueueFullError as error:
            raise BlamelessError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the queue is full", headers=_RETRY
            ) from error
        except TimeoutError as error:
            # A client that gave less time than the server would have has itself to blame.
            kind = HttpError if seconds == self._deadline else BlamelessError
            raise kind(
                HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {seconds:g} seconds"
            ) from error

    def _models(self) -> dict[str, ServedModel]:
        serving = self._deployment.serving
        return dict(serving.models) if serving else {}

    def _render_metrics(self) -> Response:
        serving = self._deployment.serving
        slot = serving.slot.hex if serving and serving.slot else ""
        gauges = {
            "edgectl_infer_pending": ("Requests that wait or run.", self._pool.pending),
            "edgectl_ready": ("Whether models are being served.", int(serving is not None)),
            "process_resident_memory_bytes": (
                "Resident memory size in bytes.",
                metrics.resident_bytes(),
            ),
        }
        labels = (("slot", slot), ("state", self._deployment.goal.state))
        text = self._metrics.render(gauges, labels)
        return Response(HTTPStatus.OK, text.encode(), metrics.CONTENT_TYPE.encode())


def _infer_and_encode(model: ServedModel, request: InferRequest) -> tuple[bytes, int | None, float]:
    outputs, seconds = model.infer(request)
    return *encode_response(model.name, model.version, outputs, request.id), seconds


def _parse(model: ServedModel, headers: list[tuple[bytes, bytes]], body: bytes) -> InferRequest:
    kind = header(headers, b"content-type") or b""
    if _is_encoded(kind, model):
        return raw_request(model.signature.inputs, body, encoded=True)
    value = header(headers, _HEADER_LENGTH)
    if value is None:
        return parse_request(body, None)
    if not value.isdigit() or len(value) > 18:
        raise InputError(f"{HEADER_LENGTH} is not a number of bytes")
    length = int(value)
    if length == 0:
        return raw_request(model.signature.inputs, body, encoded=False)
    return parse_request(body, length)


def _is_encoded(content_type: bytes, model: ServedModel) -> bool:
    """Whether the body is one encoded datum. Web pages send JSON as text unless they are told not
    to, so text is only that for a model that takes some."""
    if content_type.startswith(b"text/"):
        return encoded_kind(model.signature.inputs[0]) in ("text", "row")
    return content_type.startswith((b"image/", b"audio/"))


def _find(models: dict[str, ServedModel] | Any, name: str, version: str | None) -> ServedModel:
    model: ServedModel | None = models.get(name)
    if model is None:
        served = ", ".join(sorted(models)) or "none"
        raise HttpError(HTTPStatus.NOT_FOUND, f"unknown model {name[:200]!r}; served: {served}")
    if version not in (None, "", model.version):
        raise HttpError(
            HTTPStatus.NOT_FOUND,
            f"model {name!r} has no version {version[:200]!r}; served: {model.version}",
        )
    return model


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        raise HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{scope['method'][:20]} is not allowed here",
            headers=((b"allow", ", ".join(methods).encode()),),
        )
