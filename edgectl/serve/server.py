"""Runs the server until it is told to end: listener, event loop, threads, slot watcher."""

from __future__ import annotations

import gc
import resource
import signal
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from edgectl.engine.errors import EngineError, UnsupportedError
from edgectl.errors import ConfigError, HealthError, IncompatibleError
from edgectl.serve.app import App
from edgectl.serve.deployment import Deployment, Serving, SlotWatcher
from edgectl.serve.http import BodyReader, BoundedHttpProtocol
from edgectl.serve.model import Limits, ServedModel
from edgectl.serve.pool import InferencePool
from edgectl.serve.slot import slot_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from edgectl.digest import Digest

_HELD_BODIES = 4
"""Bodies of the largest size that may be in memory, half received, at once."""
_DRAIN_SECONDS = 30
_BACKLOG = 256
"""Connections that the kernel keeps until they are accepted, all of them at once."""
_OTHER_FILES = 128
"""Descriptors for what is no connection: models, libraries, the loop's own."""
_MOST_FILES = 1 << 16
_UNREAD_MILLISECONDS = 60_000
"""How long a client may leave an answer unread before the system closes the connection."""


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How to serve; exactly one of `state` and `model` says what."""

    state: Path | None = None
    """A device's state directory: serve `current`, and follow it."""
    slot: Digest | None = None
    """Serve this slot of the state directory, whatever `current` says."""
    model: Path | None = None
    """Serve this one model directory."""
    host: str = "127.0.0.1"
    port: int = 8080
    threads: int = 1
    """Processor threads of one inference."""
    workers: int = 1
    """Inferences at the same time."""
    queue: int = 64
    """Requests that wait for a worker before more are refused."""
    max_body: int = 32 << 20
    """Bytes."""
    max_batch: int = 256
    deadline: float = 30.0
    """Seconds for the body to arrive, and again for the answer."""

    def __post_init__(self) -> None:
        """Raises ValueError for limits that no request could keep to."""
        if self.max_body < 1 or self.deadline <= 0:
            raise ValueError("--max-body and --deadline have to be more than nothing")


def serve(config: ServeConfig, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what has been accepted.

    Calls `on_listening` with the URL once connections are accepted; models may still be loading.
    Raises ConfigError if the address cannot be used or there is no slot to pin, and HealthError or
    IncompatibleError if a single model directory does not load (a slot that does not load is the
    agent's to deal with).
    """
    if config.state and config.slot and not slot_path(config.state, config.slot).is_dir():
        raise ConfigError(
            f"{config.state} holds no slot {config.slot.hex}",
            hint="leave --slot out to serve the current one",
        )
    _collect_rarely()
    limits = Limits(batch=config.max_batch, tensor_bytes=config.max_body)
    load_model = partial(ServedModel.load, threads=config.threads, limits=limits)
    deployment = Deployment(_load_single(config.model, load_model) if config.model else None)
    with _listen(config.host, config.port) as listener:
        pool = InferencePool(config.workers, config.queue)
        bodies = BodyReader(
            config.max_body,
            total_limit=_HELD_BODIES * config.max_body,
            seconds=config.deadline,
        )
        app = App(deployment, pool, bodies, deadline=config.deadline)
        watcher = (
            SlotWatcher(config.state, deployment, load_model, pinned=config.slot)
            if config.state
            else None
        )
        if watcher:
            watcher.start()
        try:
            _Server(app, on_listening, _url(listener)).run(sockets=[listener])
        finally:
            if watcher:
                watcher.stop()
            pool.close(_DRAIN_SECONDS)


class _Server(uvicorn.Server):
    """uvicorn without its own signals' aftermath: a drained server has ended well."""

    def __init__(self, app: App, on_listening: Callable[[str], None], url: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedHttpProtocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                interface="asgi3",
                backlog=_BACKLOG,
                limit_concurrency=_allow_connections(),
                log_config=None,
                log_level="error",  # what a client does wrong is said to the client
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        self._on_listening = on_listening
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once connections are accepted."""
        await super().startup(sockets)
        self._on_listening(self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second SIGINT."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def _allow_connections() -> int:
    """Have the system allow as many open files as it may; how many connections leave room for what
    else the process needs. A service usually starts with 1,024, which it may raise by itself."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, files = (
        _MOST_FILES if limit == resource.RLIM_INFINITY else min(limit, _MOST_FILES)
        for limit in limits
    )
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, limits[1]))
    return files - min(_BACKLOG + _OTHER_FILES, files // 2)


def _collect_rarely() -> None:
    """Tune the garbage collector for a server whose requests leave no cycles behind: with the
    defaults a hostile JSON body of millions of lists stalls everybody four times as long."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _load_single(path: Path, load_model: Callable[[Path], ServedModel]) -> Serving:
    try:
        model = load_model(path)
    except UnsupportedError as error:
        raise IncompatibleError(str(error), hint="serve a variant made for this device") from error
    except EngineError as error:
        raise HealthError(
            str(error), hint="check that --model is a directory with signature.json and the model"
        ) from error
    return Serving({model.name: model})


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _address_error(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections take it from their listener
            timeout = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
            listener.setsockopt(*timeout)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _address_error(host, port, error) from error
    return listener


def _address_error(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host}:{port}: {error.strerror}",
        hint="choose another --host or --port (0 takes a free one)",
    )


def _url(listener: socket.socket) -> str:
    address: tuple[Any, ...] = listener.getsockname()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
