"""What one core of this machine can multiply and add at the very most, in fp32 and in int8.

A loop of nothing but fused multiply-adds on registers, no memory: no kernel of any engine can be
faster. Compiled by gcc for the machine itself; there is no answer without gcc or AVX-512 VNNI.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.shape_inference

_SOURCE = r"""
#include <immintrin.h>
#include <stdio.h>
#include <time.h>

#define CHAINS 12  /* independent sums: enough to hide the latency of an instruction */
#define STEPS 10000000L

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double fp32(void) {
    __m512 sum[CHAINS], x = _mm512_set1_ps(1e-9f);
    _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_ps((float)i);
    double start = now();
    for (long n = 0; n < STEPS; n++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {
            sum[i] = _mm512_fmadd_ps(x, x, sum[i]);
            __asm__ volatile("" : "+v"(sum[i]));
        }
    return STEPS * CHAINS * 16 / (now() - start);
}

static double int8(void) {
    __m512i sum[CHAINS], x = _mm512_set1_epi8(1);
    _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_epi32(i);
    double start = now();
    for (long n = 0; n < STEPS; n++)
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {
            sum[i] = _mm512_dpbusd_epi32(sum[i], x, x);
            __asm__ volatile("" : "+v"(sum[i]));
        }
    return STEPS * CHAINS * 64 / (now() - start);
}

int main(void) {
    fp32();
    double best[2] = {0, 0};
    for (int i = 0; i < 3; i++) {
        double a = fp32(), b = int8();
        if (a > best[0]) best[0] = a;
        if (b > best[1]) best[1] = b;
    }
    printf("[%f, %f]\n", best[0], best[1]);
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """Multiply-adds each second of one core, by the type of the factors."""

    fp32: float
    int8: float


def peak(folder: Path) -> Peak | None:
    """Compile and run; None where that is not possible."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if shutil.which("gcc") is None or "avx512_vnni" not in flags:
        return None
    (folder / "peak.c").write_text(_SOURCE)
    program = folder / "peak"
    options = ["-O3", "-funroll-loops", "-mavx512f", "-mavx512bw", "-mavx512vnni"]
    subprocess.run(["gcc", *options, "-o", program, folder / "peak.c"], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return Peak(*json.loads(done.stdout))


def multiply_adds(model: onnx.ModelProto) -> int:
    """Those of the convolutions and matrix products of a model for one row."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [max(1, each.dim_value) for each in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            depth, *kernel = weights[node.input[1]][1:]
            total += _product(shapes[node.output[0]]) * depth * _product(kernel)
        elif node.op_type in {"Gemm", "MatMul"} and node.input[1] in weights:
            total += _product(weights[node.input[1]])
    return total


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
