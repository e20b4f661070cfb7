"""Memory of an NVIDIA GPU, through the driver's own library (CUDA driver API) and ctypes.

`libcuda.so.1` belongs to the driver: it is on every machine whose GPU works, under one name for
every CUDA version, and its calls keep their form (the `_v2` in a name is that form). TensorRT works
in the GPU's primary context, which is the one retained here, so pointers and streams are shared
(CUDA driver API, "Interactions between Runtime and Driver API").

See docs/adr/0012-gpu-memory-through-the-driver.md.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from edgectl.engine.errors import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIBRARY = "libcuda.so.1"

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_NAME_BYTES = 256

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, ctypes.POINTER(c_char_p)),
    "cuDeviceGetCount": (ctypes.POINTER(c_int),),
    "cuDeviceGet": (ctypes.POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (ctypes.POINTER(c_int), c_int, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (ctypes.POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (ctypes.POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
}


class Gpu:
    """The first GPU and its primary context, retained until `close`.

    Raises EngineUnavailableError where there is no driver or no GPU.
    """

    def __init__(self) -> None:
        self._library = _load()
        self.call("cuInit", 0)
        count, device, context = c_int(), c_int(), c_void_p()
        self.call("cuDeviceGetCount", byref(count))
        if count.value < 1:
            raise EngineUnavailableError("this machine has no NVIDIA GPU that CUDA sees")
        self.call("cuDeviceGet", byref(device), 0)
        self._device = device.value
        self.compute_capability = ".".join(
            str(self._attribute(name)) for name in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        """Such as `8.7`."""
        self.call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._context = context
        self._open = True

    @property
    def name(self) -> str:
        """What the vendor calls it."""
        buffer = ctypes.create_string_buffer(_NAME_BYTES)
        self.call("cuDeviceGetName", buffer, _NAME_BYTES, self._device)
        return buffer.value.decode(errors="replace")

    def bind(self) -> None:
        """Make the context that of the calling thread: each thread has its own."""
        self.call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Give the context back; buffers and streams have to be closed before."""
        if self._open:
            self._open = False
            self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _attribute(self, which: int) -> int:
        value = c_int()
        self.call("cuDeviceGetAttribute", byref(value), which, self._device)
        return value.value

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; raises EngineError, or EngineUnavailableError from
        `cuInit`, with what CUDA says."""
        status = getattr(self._library, name)(*arguments)
        if status:
            text = c_char_p()
            self._library.cuGetErrorString(status, byref(text))
            said = (text.value or b"unknown error").decode(errors="replace")
            if name == "cuInit":
                raise EngineUnavailableError(f"CUDA does not start here: {said} ({status})")
            memory = "the GPU has no memory left: " if status == _OUT_OF_MEMORY else ""
            raise EngineError(f"{memory}{name} fails: {said} ({status})")


class Stream:
    """An order of work on a GPU, beside the default one."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        handle = c_void_p()
        gpu.call("cuStreamCreate", byref(handle), _NON_BLOCKING)
        self.handle = handle.value or 0

    def synchronize(self) -> None:
        """Wait until everything given to the stream is done."""
        self._gpu.call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Free the stream."""
        if self.handle:
            self._gpu.call("cuStreamDestroy_v2", self.handle)
            self.handle = 0


class Buffer:
    """Memory on a GPU that grows to what is asked of it, and is kept between runs."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.address = 0
        self._size = 0

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes; what was in the buffer may be gone."""
        if size > self._size or not self.address:
            self.close()
            address = c_uint64()
            self._gpu.call("cuMemAlloc_v2", byref(address), max(size, 1))
            self.address, self._size = address.value, size
        return self.address

    def upload(self, array: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to the GPU; it must stay until the stream is synchronised."""
        self._gpu.call(
            "cuMemcpyHtoDAsync_v2", self.address, array.ctypes.data, array.nbytes, stream.handle
        )

    def download(self, array: NDArray[Any], stream: Stream) -> None:
        """Copy from the GPU into a contiguous array, which is filled once the stream is
        synchronised."""
        self._gpu.call(
            "cuMemcpyDtoHAsync_v2", array.ctypes.data, self.address, array.nbytes, stream.handle
        )

    def close(self) -> None:
        """Free the memory."""
        if self.address:
            self._gpu.call("cuMemFree_v2", self.address)
            self.address = self._size = 0


_lock = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}


def _load() -> ctypes.CDLL:
    """The driver's library with the argument types of what is called; loaded once."""
    with _lock:
        if LIBRARY not in _loaded:
            try:
                library = ctypes.CDLL(LIBRARY)
                for name, types in _SIGNATURES.items():
                    getattr(library, name).argtypes = types
            except (OSError, AttributeError) as error:
                raise EngineUnavailableError(
                    f"this machine has no usable NVIDIA driver: {error}"
                ) from error
            _loaded[LIBRARY] = library
        return _loaded[LIBRARY]
