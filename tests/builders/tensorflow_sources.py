"""TensorFlow models for the tests, written by the toolchain's own Python.

`python tensorflow_sources.py DIRECTORY` writes every source, and what each answers to `inputs.npz`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers


def cnn() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.LeakyReLU()(layers.ReLU(6.0)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, activation="softmax", name="scores")(x))


def lstm() -> keras.Model:
    steps = keras.Input((12, 5), name="steps")
    return keras.Model(steps, layers.Dense(3, name="scores")(layers.LSTM(6)(steps)))


def conv1d() -> keras.Model:
    stack = [keras.Input((12, 5), name="steps"), layers.Conv1D(6, 3), layers.MaxPooling1D(2)]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(3, name="scores")])


def with_lambda() -> keras.Model:
    steps = keras.Input((4,), name="steps")
    return keras.Model(steps, layers.Lambda(lambda x: x * 2, name="sneaky")(steps))


ROWS = [tf.TensorSpec([None, 4], tf.float32, name="x")]


def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x * 2}


def python(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.ensure_shape(tf.numpy_function(lambda v: v * 2, [x], tf.float32), [None, 4])}


def flex(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.math.atan(x)}


def ill(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x * tf.constant([1.0, float("nan"), 1.0, 1.0])}


def free(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.reduce_sum(x, 1, keepdims=True)}


def save(folder: Path, takes: list[tf.TensorSpec], **signatures: Any) -> None:
    """A SavedModel with these functions as its signatures, and nothing else."""
    module = tf.Module()
    functions = {name: tf.function(f, takes) for name, f in signatures.items()}
    module.functions = functions
    tf.saved_model.save(module, str(folder), functions)


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    arrays = {}
    for make in (cnn, lstm, conv1d):
        model, name = make(), make.__name__
        model.export(folder / name, verbose=False)
        model.save(folder / f"{name}.keras")
        rows = rng.random((40, *model.inputs[0].shape[1:]), np.float32)
        arrays[f"{name}_in"], arrays[f"{name}_out"] = rows, model.predict(rows, verbose=0)
        if make is not lstm:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / name))
            (folder / f"{name}.tflite").write_bytes(converter.convert())
    cnn().save(folder / "cnn.h5")
    with_lambda().save(folder / "lambda.keras")

    def write(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.io.write_file(str(folder / "exploded"), "boom")
        return {"y": x * 2}

    for function in (write, python, flex, ill):
        save(folder / function.__name__, ROWS, serving_default=function)
    save(folder / "free", [tf.TensorSpec([None, None], tf.float32, name="x")], serving_default=free)
    save(folder / "several", ROWS, one=double, two=flex)
    np.savez(folder / "inputs.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
