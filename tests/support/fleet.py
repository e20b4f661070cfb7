"""A whole small fleet for tests: real signatures, real release metadata, real ONNX models.

The model takes an 8x8 grey picture and says `dark` or `bright`. A `wrong` one says the opposite:
it agrees with its own golden data, and only labelled samples show what it is.
"""

from __future__ import annotations

import io
import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgectl.agent.config import load
from edgectl.agent.probe import installation, probe
from edgectl.agent.state import FILE, Operation, StateStore
from edgectl.build.modelpack import Entry, Package, Variant, model_index, pack
from edgectl.engine.signature import ModelSignature, TensorSpec
from edgectl.oci.descriptor import OCI_MANIFEST, Descriptor, Platform
from edgectl.oci.image import push_image
from edgectl.trust import keys
from edgectl.trust.release import FleetRelease, ModelRef, Ring, Selector, SoakSettings
from edgectl.trust.repository import TrustRepository
from edgectl.trust.tree import sign_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgectl.agent.config import DeviceConfig
    from edgectl.oci.store import Repository, Store
    from edgectl.trust.keys import PrivateKey
    from edgectl.trust.policy import Expiry

NAME = "fleet"
LABELS = ("dark", "bright")
AMD64 = Platform("linux", "amd64")
PROVIDERS = ("CPUExecutionProvider",)

_IMAGE = TensorSpec(
    "image",
    "FP32",
    (-1, 1, 8, 8),
    (
        {"decode": {"mode": "L"}},
        {"resize": {"width": 8, "height": 8, "fit": "stretch"}},
        {"scale": {"factor": 1 / 255}},
        {"layout": "NCHW"},
    ),
)
_SCORES = TensorSpec("scores", "FP32", (-1, 2), ({"softmax": {}}, {"topk": {"k": 1}}), LABELS)


@dataclass(frozen=True)
class ModelOptions:
    """How a published model differs from a healthy, signed one for this machine."""

    target: str = "server-amd64"
    platform: Platform = AMD64
    requires: Mapping[str, Any] = field(default_factory=lambda: {"family": "server"})
    engine_version: str = ">=1.20"
    wrong: bool = False
    """Answers the opposite."""
    golden_off: bool = False
    """Its golden outputs are not what it gives."""
    broken: bool = False
    """Its file is no model."""
    padding: int = 0
    """Bytes that make it larger."""


def model_bytes(version: str, options: ModelOptions) -> bytes:
    """The ONNX file: the mean brightness against one half. The version makes it unique."""
    if options.broken:
        return b"not an onnx file " + version.encode()
    sign = -1.0 if options.wrong else 1.0
    weights = np.stack([np.full(64, -sign), np.full(64, sign)], axis=1).astype(np.float32)
    bias = np.array([32 * sign, -32 * sign], np.float32)
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"]),
        ],
        f"brightness {version}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model.doc_string = np.random.default_rng(1).bytes(options.padding // 2).hex()
    return bytes(model.SerializeToString())


def golden_bytes(model: bytes, *, off: bool) -> bytes:
    """Golden inputs with what the model gives for them."""
    image = np.random.default_rng(7).random((4, 1, 8, 8), np.float32)
    session = onnxruntime.InferenceSession(model, providers=list(PROVIDERS))
    (scores,) = session.run(["scores"], {"image": image})
    buffer = io.BytesIO()
    np.savez(buffer, image=image, scores=scores + (1000 if off else 0))
    return buffer.getvalue()


def picture(*, bright: bool, seed: int = 0) -> bytes:
    """An encoded picture of a class."""
    low, high = (160, 256) if bright else (0, 96)
    pixels = np.random.default_rng(seed).integers(low, high, (8, 8), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "L").save(buffer, "PNG")
    return buffer.getvalue()


def write_samples(directory: Path, count: int = 6) -> Path:
    """A directory of labelled samples."""
    directory.mkdir(parents=True)
    lines = ["file,label"]
    for number in range(count):
        bright = number % 2 == 1
        (directory / f"{number}.png").write_bytes(picture(bright=bright, seed=number))
        lines.append(f"{number}.png,{LABELS[bright]}")
    (directory / "labels.csv").write_text("\n".join(lines) + "\n")
    return directory


class Fleet:
    """An operator's side: publishes models and releases into a store."""

    engines_are_known = True
    """Whether its devices have asked the installed engines already, which takes seconds."""

    def __init__(self, directory: Path, store: Store, *, expiry: Expiry | None = None) -> None:
        self.directory = directory
        self.store = store
        self.key: PrivateKey = keys.generate()
        self.key_file = directory / "cosign.pub"
        self.key_file.write_bytes(self.key.public.pem)
        self.trust = TrustRepository(
            store, directory / "trust", password=lambda: b"tests", expiry=expiry
        )
        self.trust.init()
        self.generation = 0

    def publish_model(
        self,
        name: str = "brightness",
        version: str = "1.0.0",
        options: ModelOptions | Sequence[ModelOptions] = ModelOptions(),
        *,
        key: PrivateKey | None = None,
        sign: bool = True,
    ) -> ModelRef:
        """Push a model with one variant to each of `options`, and sign all of it."""
        repository = self.store.repository(f"models/{name}")
        variants = [options] if isinstance(options, ModelOptions) else list(options)
        entries = [self._push(repository, name, version, variant) for variant in variants]
        pushed = push_image(repository, model_index(name, version, entries), tag=version)
        if sign:
            sign_tree(repository, pushed, key or self.key)
        return ModelRef(name, version, repository.name, pushed.digest)

    def release(
        self, *models: ModelRef, soak: SoakSettings | None = None, rings: Sequence[Ring] = ()
    ) -> FleetRelease:
        """Release models to a ring `all`, or the rings given, as the next generation."""
        self.generation += 1
        release = FleetRelease(
            NAME,
            self.generation,
            Selector(),
            tuple(rings) or (Ring("all", Selector(), soak or SoakSettings(), tuple(models)),),
        )
        self.trust.publish({NAME: release})
        return release

    def device(self, name: str = "device-1", **changes: Any) -> Path:
        """Write a `device.yaml` in a directory of its own; `None` removes a key."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        location = self.store.location
        value: dict[str, Any] = {
            "device": {"id": name, "labels": {}},
            "fleet": NAME,
            "registry": str(location),
            "state": "./state",
            "trust": {"root": str(self.trust.root_file)},
            "keys": [str(self.key_file)],
            "access": {"insecure": not location.is_layout},
            "limits": {"warmup": "60s", "switch": "20s", "reserve": "1Mi"},
        } | changes
        file = directory / "device.yaml"
        file.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))
        if self.engines_are_known and value["state"] is not None:
            _remember_engines(directory / value["state"])
        return file

    def config(self, name: str = "device-1", **changes: Any) -> DeviceConfig:
        """The loaded configuration of `device`."""
        return load(self.device(name, **changes))

    def _push(
        self, repository: Repository, name: str, version: str, options: ModelOptions
    ) -> Entry:
        package, files = package_model(name, version, options)
        for blob in package.manifest.blobs:
            repository.push_blob(blob, package.blobs.get(blob.digest) or files[str(blob.digest)])
        repository.push_manifest(package.manifest.to_bytes(), OCI_MANIFEST)
        return Entry(package.manifest, options.platform)


def _remember_engines(state: Path) -> None:
    """Give a new device the memory of one that has found out what its engines are."""
    if (state / FILE).exists():
        return
    state.mkdir(parents=True, exist_ok=True)
    opened, _ = StateStore.open(state)
    with closing(opened) as memory:
        memory.save_record("engines", _engines(installation()))
        memory.enter(Operation())


@cache
def _engines(_installation: str) -> dict[str, Any]:
    return probe().to_json()


def variant_of(name: str, version: str, options: ModelOptions) -> Variant:
    """What a package says of the model in it."""
    described = ModelSignature(
        name,
        version,
        "classification",
        (_IMAGE,),
        (_SCORES,),
        {
            "name": "onnxruntime",
            "version": options.engine_version,
            "providers": list(options.requires.get("providers", PROVIDERS)),
        },
        {"absolute": 1e-3, "relative": 1e-3, "top1": 1.0},
    )
    return Variant(described, options.target, options.platform, "fp32", options.requires)


def package_model(
    name: str, version: str, options: ModelOptions
) -> tuple[Package, dict[str, bytes]]:
    """A model as edgectl packages it, and the bytes of the files that the package names."""
    model = model_bytes(version, options)
    healthy = model_bytes(version, replace(options, broken=False))
    golden = golden_bytes(healthy, off=options.golden_off)
    variant = variant_of(name, version, options)
    files = {str(Descriptor.of(data, "x").digest): data for data in (model, golden)}
    package = pack(
        variant,
        model=Descriptor.of(model, "application/octet-stream"),
        golden=Descriptor.of(golden, "application/octet-stream"),
        card=f"# {name} {version}\n",
    )
    return package, files
