"""Clients that never stop asking: they count what an update costs, which must be nothing."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Self

from device import Device, infer

if TYPE_CHECKING:
    from types import TracebackType


class Traffic:
    """One client thread a device, for as long as the context is open."""

    def __init__(self, devices: list[Device]) -> None:
        self._stop = threading.Event()
        self._sent = 0
        self._failed = 0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._client, args=(device,)) for device in devices
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> tuple[int, int]:
        """End the clients; how many requests were sent, and how many failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._sent, self._failed

    def _client(self, device: Device) -> None:
        images = [image for image, _ in device.samples()]
        connection = http.client.HTTPConnection(*device.address, timeout=30)
        position = 0
        while not self._stop.wait(0.01):
            failed = 0
            try:
                infer(connection, images[position % len(images)])
            except (OSError, RuntimeError, http.client.HTTPException):
                failed = 1
                connection.close()
            position += 1
            with self._lock:
                self._sent += 1
                self._failed += failed
        connection.close()
