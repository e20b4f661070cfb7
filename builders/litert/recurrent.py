"""LSTM, GRU and RNN, written out step by step: TFLite's loops are never quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from graph import Node, Value, operator

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STEPS = 256

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "Sigmoid": tf.sigmoid, "Tanh": tf.tanh, "Relu": tf.nn.relu
}  # fmt: skip
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@operator("LSTM", "GRU", "RNN")
def _recurrent(node: Node) -> list[Value]:
    """Inputs X [steps, batch, in], W, R, B, lengths, initial h (and c); outputs Y, Y_h (, Y_c)."""
    x = node.input().first
    steps = int(x.shape[0])
    if steps > MAX_STEPS:
        raise node.refuse(f"has {steps} steps; at most {MAX_STEPS} are written out")
    lengths = node.constant(4)
    if (lengths is not None and np.any(lengths != steps)) or node.attribute("layout", 0):
        raise node.refuse("has sequences of unequal lengths, or the batch first")
    if node.given(7) or node.attribute("clip") is not None:
        raise node.refuse("has peepholes or clips its gates")
    direction = node.attribute("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    outputs, hidden, cells = [], [], []
    for index in range(count):
        back = direction == "reverse" or index == 1
        found = _Direction(node, index, count).run(tf.unstack(x), back=back)
        for collected, value in zip((outputs, hidden, cells), found, strict=True):
            collected.append(value)
    everything = Value(tf.stack(outputs, 1))  # [steps, directions, batch, hidden]
    results = [everything, Value(tf.stack(hidden))]
    return [*results, Value(tf.stack(cells))] if node.operator == "LSTM" else results


class _Direction:
    """One direction of a recurrent node."""

    def __init__(self, node: Node, index: int, count: int) -> None:
        self.kind = node.operator
        size = node.attribute("hidden_size")
        gates = _GATES[self.kind]
        self.node = node
        self.weights = np.ascontiguousarray(np.asarray(node.constant(1))[index].T)
        self.recurrence = np.ascontiguousarray(np.asarray(node.constant(2))[index].T)
        bias = np.zeros(2 * gates * size, np.float32)
        if node.given(3):
            bias = np.asarray(node.constant(3))[index]
        self.bias, self.recurrent_bias = bias[: gates * size], bias[gates * size :]
        names = node.attribute("activations") or _DEFAULTS[self.kind] * count
        per = len(_DEFAULTS[self.kind])
        names = [n.decode() if isinstance(n, bytes) else n for n in names][index * per :][:per]
        if any(name not in _ACTIVATIONS for name in names):
            raise node.refuse(f"has the activations {', '.join(names)}")
        self.activations = [_ACTIVATIONS[name] for name in names]
        batch = node.input().shape[1]
        self.start = self._initial(5, index, batch, size)
        self.start_cell = self._initial(6, index, batch, size)

    def _initial(self, at: int, index: int, batch: int, size: int) -> Any:
        if self.node.given(at):
            return self.node.input(at).first[index]
        return np.zeros((batch, size), np.float32)

    def run(self, steps: list[Any], *, back: bool) -> tuple[Any, Any, Any]:
        """Y [steps, batch, hidden], the last h and the last c."""
        hidden, cell = self.start, self.start_cell
        outputs = []
        for x in reversed(steps) if back else steps:
            hidden, cell = self._step(tf.matmul(x, self.weights) + self.bias, hidden, cell)
            outputs.append(hidden)
        return tf.stack(outputs[::-1] if back else outputs), hidden, cell

    def _step(self, x: Any, hidden: Any, cell: Any) -> tuple[Any, Any]:
        again = tf.matmul(hidden, self.recurrence) + self.recurrent_bias
        if self.kind == "RNN":
            return self.activations[0](x + again), cell
        if self.kind == "LSTM":
            inner, outer, forget, new = tf.split(x + again, 4, -1)
            gate, squash, final = self.activations
            cell = gate(forget) * cell + gate(inner) * squash(new)
            return gate(outer) * final(cell), cell
        gate, squash = self.activations
        update, reset, new = tf.split(x, 3, -1)
        update_again, reset_again, new_again = tf.split(again, 3, -1)
        keep = gate(update + update_again)
        fresh = gate(reset + reset_again)
        if self.node.attribute("linear_before_reset", 0):
            candidate = squash(new + fresh * new_again)
        else:
            size = int(new.shape[-1])
            matrix, bias = self.recurrence[:, 2 * size :], self.recurrent_bias[2 * size :]
            candidate = squash(new + tf.matmul(fresh * hidden, matrix) + bias)
        return (1 - keep) * candidate + keep * hidden, cell
