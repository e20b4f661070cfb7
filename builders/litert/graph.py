"""An ONNX graph walked node by node into TensorFlow operators that TFLite has.

ONNX puts channels first, TFLite's convolutions take them last. A `Value` holds a tensor in the form
in which it was made and changes it on demand, so that chains of convolutions, activations and sums
stay channels-last and a transposition stands only where the order matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tensorflow as tf

from edgectl.build.protocol import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Handler = Callable[["Node"], "Value | Sequence[Value]"]

OPERATORS: dict[str, Handler] = {}
"""ONNX operator to what writes it; filled by the modules that define them."""


class Value:
    """A tensor: a constant, or computed; in ONNX's order, channels-last, or both."""

    def __init__(
        self,
        first: Any = None,
        *,
        last: Any = None,
        nonnegative: bool = False,
    ) -> None:
        self._first = first
        self._last = last
        self.made_last = first is None
        self.nonnegative = nonnegative
        """Whether no element can be below 0, as after a Relu."""
        self.origin: tuple[str, Value, float] | None = None
        """A step of a known formula that ends here: its name, its argument, and a factor."""

    @property
    def constant(self) -> np.ndarray | None:
        """The elements, where they are known."""
        return self._first if isinstance(self._first, np.ndarray) else None

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def shape(self) -> list[int]:
        """In ONNX's order."""
        if self._first is not None:
            return [int(size) for size in self._first.shape]
        batch, *rest = (int(size) for size in self._last.shape)
        return [batch, rest[-1], *rest[:-1]]

    @property
    def first(self) -> Any:
        """In ONNX's order: channels at dimension 1."""
        if self._first is None:
            if all(size == 1 for size in self._last.shape[1:-1]):
                self._first = tf.reshape(self._last, self.shape)  # the order of elements is equal
            else:
                self._first = tf.transpose(self._last, to_first(self.rank))
        return self._first

    @property
    def last(self) -> Any:
        """Channels last."""
        if self._last is None:
            order = to_last(self.rank)
            if self.constant is not None:
                self._last = np.transpose(self.constant, order)
            else:
                self._last = tf.transpose(self._first, order)
        return self._last


def to_last(rank: int) -> list[int]:
    """The permutation from ONNX's order to channels-last."""
    return [0, *range(2, rank), 1]


def to_first(rank: int) -> list[int]:
    """The permutation from channels-last to ONNX's order."""
    return [0, rank - 1, *range(1, rank - 1)]


class Node:
    """A node with its inputs as Values."""

    def __init__(self, proto: onnx.NodeProto, inputs: list[Value | None], opset: int) -> None:
        self.operator = proto.op_type
        self.name = proto.name or proto.output[0]
        self.inputs = inputs
        self.opset = opset
        self.outputs = len(proto.output)
        self._proto = proto
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute; text as str, a tensor as an array."""
        value = self._attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, onnx.TensorProto):
            return onnx.numpy_helper.to_array(value)
        return value

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int = 0) -> Value:
        """An input that must be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.refuse(f"lacks its input {index}")
        return value

    def constant(self, index: int, default: Any = None) -> Any:
        """The elements of an input that must be known when the model is converted."""
        if not self.given(index):
            return default
        value = self.input(index).constant
        if value is None:
            raise self.refuse(f"computes its input {index}, which TFLite takes as a constant")
        return value

    def axes(self, index: int = 1, name: str = "axes") -> list[int] | None:
        """Axes by input (newer opsets) or attribute (older ones), none negative."""
        found = self.constant(index, self.attribute(name))
        if found is None:
            return None
        rank = self.input().rank
        return [int(axis) % rank for axis in np.atleast_1d(found)]

    def refuse(self, why: str) -> RefusalError:
        """The refusal of what TFLite cannot do."""
        return RefusalError(
            "unsupported-operator",
            f"operator {self.operator} (node {self.name!r}) {why}",
            node=self.name,
            hint="rewrite this part of the model, or leave targets with litert or tflm out of the "
            "fleet",
        )

    def folded(self) -> list[Value] | None:
        """The outputs, where every input is a constant: computed here."""
        constants = [None if v is None else v.constant for v in self.inputs]
        if any(v is not None and c is None for v, c in zip(self.inputs, constants, strict=True)):
            return None
        from onnx.reference import ReferenceEvaluator

        proto = onnx.NodeProto.FromString(self._proto.SerializeToString())
        given = {name: value for name, value in zip(proto.input, constants, strict=True) if name}
        graph = onnx.helper.make_graph(
            [proto],
            "node",
            [onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            ) for name, value in given.items()],
            [onnx.ValueInfoProto(name=name) for name in proto.output],
        )  # fmt: skip
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)]
        )
        return [Value(np.asarray(v)) for v in ReferenceEvaluator(model).run(None, given)]


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Register what writes one or more ONNX operators."""

    def register(handler: Handler) -> Handler:
        for name in names:
            OPERATORS[name] = handler
        return handler

    return register


def trace(model: onnx.ModelProto, tensors: dict[str, Any]) -> list[Any]:
    """The graph's outputs in ONNX's order, computed from its inputs by name.

    Called inside a tf.function, whose graph it writes. Refuses an operator that has no handler, or
    is used in a way that TFLite cannot do (`unsupported-operator`).
    """
    opset = next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"})
    values: dict[str, Value] = {
        tensor.name: Value(onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer
    }
    values |= {name: Value(tensor) for name, tensor in tensors.items()}
    for proto in model.graph.node:
        node = Node(proto, [values[name] if name else None for name in proto.input], opset)
        results = _convert(node, proto.domain)
        values |= dict(zip(proto.output, results, strict=False))
    return [tf.convert_to_tensor(values[output.name].first) for output in model.graph.output]


def _convert(node: Node, domain: str) -> Sequence[Value]:
    if node.operator == "Constant":
        return [Value(constant_of(node))]
    handler = OPERATORS.get(node.operator) if domain in {"", "ai.onnx"} else None
    if handler is None:
        where = f" of {domain}" if domain else ""
        raise node.refuse(f"{where} has no form in TFLite".lstrip())
    folded = node.folded()
    if folded is not None:
        return folded
    results = handler(node)
    return [results] if isinstance(results, Value) else results


def constant_of(node: Node) -> np.ndarray:
    """What a Constant node holds."""
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        value = node.attribute(name)
        if value is not None:
            return np.asarray(value, dtype)
    raise node.refuse("holds text or a sparse tensor")
