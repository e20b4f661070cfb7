"""`Target`: a hardware profile, and what a model may cost there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from edgectl.manifest.base import Bytes, Element, Fault, Lax, Manifest, Seconds, Text, Watts, form
from edgectl.manifest.model import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Family = Literal[
    "jetson", "intel-nuc", "raspberry-pi", "android", "ios", "cortex-m", "esp32", "arduino",
    "server",
]  # fmt: skip
ComputeCapability = Annotated[str, form(r"^[0-9]+\.[0-9]+$", "two numbers such as 8.7")]
EngineName = Literal["onnxruntime", "openvino", "tensorrt", "litert", "tflm", "coreml"]


class Platform(Element):
    """OCI platform (image-spec, image-index.md), in Go's names."""

    os: Literal["linux", "android", "ios", "none"] = Field(
        description="Operating system; `none` for a microcontroller.", examples=["linux"]
    )
    architecture: Literal["amd64", "arm64", "arm", "riscv64", "xtensa"] = Field(
        description="Instruction set.", examples=["arm64"]
    )
    variant: Annotated[str, form(r"^[a-z0-9]+$", "lower-case letters and digits")] | None = Field(
        default=None, description="Variant of the instruction set.", examples=["v8"]
    )


class Cpu(Element):
    """Its cores and instruction set."""

    model: Text = Field(description="What it is called.", examples=["Arm Cortex-A76"])
    cores: Annotated[int, Field(ge=1)] = Field(
        description="Cores that inference may use.", examples=[4]
    )
    features: Annotated[tuple[Text, ...], Lax] = Field(
        default=(),
        description="Instruction set extensions that a variant may rely on, as /proc/cpuinfo "
        "spells them.",
        examples=[["avx2", "avx_vnni"]],
    )


class Accelerator(Element):
    """Something beside the processor that runs models."""

    kind: Literal["gpu", "npu", "dla", "dsp"] = Field(
        description="What sort it is.", examples=["gpu"]
    )
    model: Text = Field(description="What it is called.", examples=["Ampere, 1024 CUDA cores"])
    compute_capability: ComputeCapability | None = Field(
        default=None, description="CUDA compute capability.", examples=["8.7"]
    )
    memory: Bytes | None = Field(
        default=None,
        description="Its own memory; absent where it shares the processor's.",
        examples=["8Gi"],
    )


class PowerMode(Element):
    """A power mode that the hardware can be set to."""

    name: Text = Field(description="What the vendor calls it.", examples=["15W"])
    power: Watts | None = Field(
        default=None, description="Budget of the mode; absent where it has none.", examples=["15W"]
    )


class Power(Element):
    """What the hardware draws."""

    typical: Watts = Field(description="Under inference load.", examples=["15W"])
    max: Watts = Field(description="Most it draws.", examples=["25W"])
    modes: Annotated[tuple[PowerMode, ...], Lax] = Field(
        default=(), description="Its power modes.", examples=[[{"name": "15W", "power": "15W"}]]
    )


class Engine(Element):
    """The inference engine on the device."""

    name: EngineName = Field(description="Which engine.", examples=["onnxruntime"])
    version: Annotated[
        str,
        form(
            r"^(>=|<=|==|~=|<|>)?[0-9]+(\.[0-9]+)*"
            r"(\s*,\s*(>=|<=|==|~=|<|>)[0-9]+(\.[0-9]+)*)*$",
            "a version, or comparisons such as '>=1.20, <2'",
        ),
    ] = Field(description="Which of its versions run the variant.", examples=[">=1.20"])
    providers: Annotated[tuple[Text, ...], Lax] = Field(
        default=(),
        description="ONNX Runtime execution providers, the preferred first.",
        examples=[["CPUExecutionProvider"]],
    )
    device: (
        Annotated[
            str, form(r"^(CPU|GPU(\.[0-9]+)?|NPU|AUTO|DLA:[0-9])$", "CPU, GPU, NPU, AUTO or DLA:0")
        ]
        | None
    ) = Field(
        default=None,
        description="What OpenVINO (CPU, GPU, NPU, AUTO) or TensorRT (GPU, DLA:0) runs it on.",
        examples=["GPU"],
    )
    workspace: Bytes | None = Field(
        default=None,
        description="Most memory that TensorRT may use for tactics while it builds an engine.",
        examples=["1Gi"],
    )


class Quantization(Element):
    """The int8 form that is fast and exact on this hardware."""

    activations: Literal["uint8", "int8"] = Field(
        description="Type of activations.", examples=["uint8"]
    )
    weights: Literal["uint8", "int8"] = Field(
        default="int8", description="Type of weights.", examples=["int8"]
    )
    per_channel: bool = Field(
        default=True, description="One scale for each output channel.", examples=[True]
    )
    symmetric_activations: bool = Field(
        default=False,
        description="Zero point 0 for activations, as TensorRT demands.",
        examples=[False],
    )
    reduce_range: bool | None = Field(
        default=None,
        description="Weights of 7 bits, for x86 processors without VNNI, where sums of uint8 "
        "activations with 8-bit weights can saturate. Without it: where `cpu.features` name an x86 "
        "processor and no VNNI.",
        examples=[True],
    )
    scheme: Literal["static", "dynamic"] = Field(
        default="static",
        description="Ranges of activations from calibration data, or taken anew in each run.",
        examples=["static"],
    )
    boundary: Literal["float", "int8"] = Field(
        default="float",
        description="What inputs and outputs of a TFLite file are.",
        examples=["float"],
    )


class Constraints(Element):
    """What one model may cost. Latency and memory count where they are measured on this very
    hardware: during a device's warm-up at the latest."""

    latency: Seconds | None = Field(
        default=None, description="Most time of one inference, p99.", examples=["20ms"]
    )
    peak_memory: Bytes | None = Field(
        default=None, description="Most memory of the inference process.", examples=["200Mi"]
    )
    model_size: Bytes | None = Field(
        default=None, description="Most bytes of the model's file.", examples=["50Mi"]
    )
    arena: Bytes | None = Field(
        default=None,
        description="Most bytes of TensorFlow Lite Micro's tensor arena. Without it: what "
        "`peakMemory` says, else the memory.",
        examples=["256Ki"],
    )
    storage: Bytes | None = Field(
        default=None,
        description="Most bytes of everything that a variant ships. Without it: the storage.",
        examples=["100Mi"],
    )
    power: Watts | None = Field(
        default=None,
        description="Most power under inference, where a build machine can measure it.",
        examples=["10W"],
    )


PROFILE_LIMITS: Mapping[str, Mapping[str, int]] = {
    "ultra-low": {"modelSize": 2 << 20, "peakMemory": 1 << 20},
    "low": {"modelSize": 64 << 20, "peakMemory": 512 << 20},
    "medium": {"modelSize": 512 << 20, "peakMemory": 2 << 30},
    "high": {},
}
"""What a model may cost by the resource class of its hardware, in bytes, where the target's own
constraints say nothing: microcontrollers; phones and small boards; strong edge computers; servers.
"""


class TargetSpec(Element):
    """The hardware, its engine, and the limits."""

    platform: Platform = Field(
        description="OCI platform of its artifacts.",
        examples=[{"os": "linux", "architecture": "arm64"}],
    )
    family: Family = Field(description="Hardware family.", examples=["raspberry-pi"])
    board: Text | None = Field(
        default=None, description="The board in words.", examples=["Raspberry Pi 5, 8 GB"]
    )
    profile: Literal["ultra-low", "low", "medium", "high"] = Field(
        description="Resource class.", examples=["low"]
    )
    cpu: Cpu = Field(
        description="The processor.", examples=[{"model": "Arm Cortex-A76", "cores": 4}]
    )
    accelerators: Annotated[tuple[Accelerator, ...], Lax] = Field(
        default=(),
        description="What else runs models.",
        examples=[[{"kind": "gpu", "model": "Ampere"}]],
    )
    memory: Bytes = Field(description="Main memory (a microcontroller's SRAM).", examples=["8Gi"])
    storage: Bytes = Field(description="Storage (a microcontroller's flash).", examples=["32Gi"])
    power: Power | None = Field(
        default=None, description="What it draws.", examples=[{"typical": "5W", "max": "12W"}]
    )
    engine: Engine = Field(
        description="The inference engine.", examples=[{"name": "onnxruntime", "version": ">=1.20"}]
    )
    precisions: Annotated[tuple[Precision, ...], Lax] = Field(
        min_length=1,
        description="Precisions that are worth building, the preferred first.",
        examples=[["int8", "fp32"]],
    )
    quantization: Quantization | None = Field(
        default=None,
        description="The int8 form; needed where `precisions` has int8.",
        examples=[{"activations": "uint8", "weights": "int8"}],
    )
    constraints: Constraints = Field(
        default_factory=Constraints,
        description="What one model may cost.",
        examples=[{"latency": "20ms"}],
    )
    objective: Literal["latency", "size", "balanced", "accuracy", "energy"] = Field(
        default="balanced",
        description="What to optimise for, within the constraints.",
        examples=["latency"],
    )

    def needs_calibration(self, precision: str) -> bool:
        """Whether a precision takes ranges from calibration data here."""
        static = self.quantization is None or self.quantization.scheme == "static"
        return precision == "int8" and static

    def limits(self) -> dict[str, float]:
        """What a model may cost: `latency` in seconds, `power` in watts, the rest in bytes; the
        hardware itself and its resource class limit what the constraints leave open."""
        said = self.constraints
        limits: dict[str, float | None] = {
            **PROFILE_LIMITS[self.profile],
            "storage": self.storage,
            **{
                name: limit
                for name, limit in (
                    ("latency", said.latency),
                    ("power", said.power),
                    ("peakMemory", said.peak_memory),
                    ("modelSize", said.model_size),
                    ("storage", said.storage),
                )
                if limit is not None
            },
        }
        if self.engine.name == "tflm":
            limits["arena"] = said.arena or said.peak_memory or self.memory
        ceiling = {"peakMemory": self.memory, "modelSize": self.storage}
        return {
            name: min(limit, ceiling.get(name, limit))
            for name, limit in limits.items()
            if limit is not None
        }

    def faults(self) -> Iterator[Fault]:
        """int8 in no form; limits that the hardware is itself below."""
        if "int8" in self.precisions and self.quantization is None:
            fault = "has int8, so quantization must say in which form"
            yield Fault(fault, ("precisions",), ("quantization",))
        limits = self.constraints
        if limits.peak_memory is not None and limits.peak_memory > self.memory:
            yield _too_much("peakMemory", of="memory")
        for field in ("model_size", "storage"):
            limit = getattr(limits, field)
            if limit is not None and limit > self.storage:
                yield _too_much(to_camel(field), of="storage")
        if limits.arena is not None and limits.arena > self.memory:
            yield _too_much("arena", of="memory")
        if "source" in self.precisions:
            yield Fault("source is for a Model's optimize.precision alone", ("precisions",))
        if self.power is not None and self.power.typical > self.power.max:
            yield Fault("is more than power.max", ("power", "typical"), ("power",))


def _too_much(constraint: str, *, of: str) -> Fault:
    return Fault("is more than the hardware has", ("constraints", constraint), (of,))


class Target(Manifest):
    """A hardware profile. edgectl ships profiles; a Target of the same name in the repository
    takes the place of the shipped one."""

    kind: Literal["Target"] = Field(description="The kind.", examples=["Target"])
    spec: TargetSpec = Field(description="What the hardware is.", examples=[{"memory": "8Gi"}])
