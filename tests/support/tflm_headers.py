"""Headers with exactly that part of TensorFlow Lite Micro's API that the emitted sources use.

The library's own headers are in no package. These declare what it declares, in the two layouts
that its versions have (classes in `tflite` and C structures outside, or all in `tflite::micro`),
around an interpreter that has one int8 input and one int8 output and copies one to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LAYOUTS = ("tflite", "tflite::micro")

_COMMON = """\
#ifndef STUB_COMMON_H_
#define STUB_COMMON_H_
#include <cstddef>
#include <cstdint>
#include <cstring>
@OPEN_C@
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteFloat32 = 1, kTfLiteInt32 = 2, kTfLiteInt16 = 7, kTfLiteInt8 = 9 };
struct TfLiteQuantizationParams { float scale; int32_t zero_point; };
union TfLitePtrUnion { int32_t* i32; float* f; int16_t* i16; int8_t* int8; void* data; };
struct TfLiteTensor {
  TfLiteType type;
  TfLitePtrUnion data;
  TfLiteQuantizationParams params;
  size_t bytes;
};
@CLOSE_C@
#endif
"""

_SCHEMA = """\
#ifndef STUB_SCHEMA_H_
#define STUB_SCHEMA_H_
#include <cstdint>
#define TFLITE_SCHEMA_VERSION (3)
namespace tflite {
struct Model { uint32_t version() const { return 3; } };
inline const Model* GetModel(const void* buffer) { return static_cast<const Model*>(buffer); }
}  // namespace tflite
#endif
"""

_RESOLVER = """\
#ifndef STUB_RESOLVER_H_
#define STUB_RESOLVER_H_
#include "stub_common.h"
@OPEN@
class MicroOpResolver {};
template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
@METHODS@
 private:
  unsigned int count_ = 0;
  TfLiteStatus Add() { return ++count_ <= tOpCount ? kTfLiteOk : kTfLiteError; }
};
@CLOSE@
#endif
"""

_INTERPRETER = """\
#ifndef STUB_INTERPRETER_H_
#define STUB_INTERPRETER_H_
#include <initializer_list>
#include "stub_common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
@OPEN@
class MicroInterpreter {
 public:
  MicroInterpreter(const tflite::Model*, const MicroOpResolver&, uint8_t* arena, size_t size)
      : arena_(arena), size_(size) {}
  TfLiteStatus AllocateTensors() {
    for (TfLiteTensor* tensor : {&input_, &output_}) {
      tensor->type = kTfLiteInt8;
      tensor->data.int8 = tensor == &input_ ? in_ : out_;
      tensor->params.scale = 0.5f;
      tensor->params.zero_point = -3;
      tensor->bytes = sizeof(in_);
    }
    const bool aligned = reinterpret_cast<uintptr_t>(arena_) % 16 == 0;
    return aligned && size_ > 0 ? kTfLiteOk : kTfLiteError;
  }
  TfLiteStatus Invoke() { std::memcpy(out_, in_, sizeof(out_)); return kTfLiteOk; }
  TfLiteStatus Reset() { return kTfLiteOk; }
  TfLiteTensor* input(size_t index) { return index == 0 ? &input_ : nullptr; }
  TfLiteTensor* output(size_t index) { return index == 0 ? &output_ : nullptr; }
  size_t arena_used_bytes() const { return size_; }

 private:
  uint8_t* arena_;
  size_t size_;
  int8_t in_[4096] = {}, out_[4096] = {};
  TfLiteTensor input_ = {}, output_ = {};
};
@CLOSE@
#endif
"""

_BOARDS = {
    "TensorFlowLite.h": "",
    "zephyr/kernel.h": "#include <cstdint>\ninline int32_t k_msleep(int32_t) { return 0; }\n",
    "freertos/FreeRTOS.h": "#define pdMS_TO_TICKS(ms) (ms)\n",
    "freertos/task.h": "inline void vTaskDelay(unsigned) {}\n",
    "Arduino.h": (
        "struct Port {\n"
        "  void begin(unsigned long) {}\n"
        "  template <typename T> void print(T) {}\n"
        "  template <typename T> void println(T) {}\n"
        "};\n"
        "static Port Serial;\n"
        "inline unsigned long micros() { return 0; }\n"
        "inline void delay(unsigned long) {}\n"
        "void setup();\n"
        "void loop();\n"
    ),
}


def write_headers(folder: Path, layout: str, methods: Sequence[str]) -> Path:
    """The headers of a version with that layout, whose resolver has those methods."""
    spaces = layout.split("::")
    opened = "".join(f"namespace {space} {{\n" for space in spaces)
    closed = "}\n" * len(spaces)
    added = "\n".join(f"  TfLiteStatus {name}() {{ return Add(); }}" for name in methods)
    texts = {
        "stub_common.h": _COMMON.replace("@OPEN_C@", opened if len(spaces) > 1 else "").replace(
            "@CLOSE_C@", closed if len(spaces) > 1 else ""
        ),
        "tensorflow/lite/schema/schema_generated.h": _SCHEMA,
        "tensorflow/lite/micro/micro_mutable_op_resolver.h": _RESOLVER.replace("@METHODS@", added),
        "tensorflow/lite/micro/micro_interpreter.h": _INTERPRETER,
        **_BOARDS,
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@OPEN@", opened).replace("@CLOSE@", closed))
    return folder
