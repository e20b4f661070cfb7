"""What the JSON of a program may say: names, numbers, operators of tensors, sums of sizes.

PyTorch pastes names into Python source, evaluates expressions and looks operators up by attribute,
so a string of any other kind could be code. Lists here name what is allowed, never what is not.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import torch

from edgectl.build.kit.torchfile.archives import SAVE_AGAIN, damaged
from edgectl.build.protocol import RefusalError

_NAME = re.compile(r"[A-Za-z0-9_.\-]*")
_TEXT = re.compile(r"[A-Za-z0-9_.,> \-]*")
"""Arguments such as the equation of an einsum; they become string literals by repr."""
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9.eE+\-]+")
_FUNCTIONS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs",
    "And", "Or", "Not", "Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan",
    "StrictLessThan", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt",
    "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv",
    "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    "IsNonOverlappingAndDenseIndicator",
}  # fmt: skip
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_WRITES_FILES = {"save", "from_file"}
_SIZES = {
    "_operator": {
        "eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub", "floordiv", "mod",
        "pow", "truediv", "and_", "or_", "lshift", "rshift", "getitem",
    },
    "math": {"trunc", "ceil", "floor"},
    "torch": {
        "sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_sqrt", "sym_sum",
    },
}  # fmt: skip
"""Python's own functions that compute sizes, by module."""
_OVERLOAD = type(torch.ops.aten.add.Tensor)
_CONTROL_FLOW = {"cond", "while_loop", "scan", "wrap_with_set_grad_enabled", "wrap_with_autocast"}


def cleaned(value: Any, key: str = "") -> Any:
    """The value as it is loaded: every string checked, notes for people left out, on the CPU.

    `key` is the field that holds the value. Raises RefusalError for what is not plain.
    """
    if isinstance(value, dict):
        if set(value) == {"type", "index"}:
            return {"type": "cpu", "index": None}
        if value.get("as_custom_obj") is not None:
            raise _not_a_model("an object of a custom class", str(value["as_custom_obj"]))
        node = value if "target" in value else None
        return {
            _name(name): {} if name == "metadata" else _field(name, inner, node)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [cleaned(inner, key) for inner in value]
    if isinstance(value, str):
        return _string(key, value)
    return value


def _field(name: str, value: Any, node: dict[str, Any] | None) -> Any:
    if name == "target" and node is not None and isinstance(value, str):
        return check_operator(value, str(node.get("name") or _result(node)))
    return cleaned(value, name)


def _result(node: dict[str, Any]) -> str:
    """What a nameless node makes."""
    outputs = node.get("outputs") or [{}]
    return str((outputs[0].get("as_tensor") or {}).get("name", ""))


def _string(key: str, value: str) -> str:
    if key == "expr_str":
        return check_expression(value)
    if key in ("in_spec", "out_spec"):
        return check_container(value)
    if key == "as_operator":
        return check_operator(value, value)
    if key in ("as_string", "as_strings"):
        if _TEXT.fullmatch(value):
            return value
        raise _not_a_model("a text that is no setting of an operator", value)
    return _name(value)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise _not_a_model("a name that is none", value)
    return value


def check_operator(target: str, node: str) -> str:
    """Refuse all operators but those of tensors, of control flow and of sizes."""
    if not _is_allowed(target.split(".")):
        raise RefusalError(
            "unsupported-operator",
            f"operator {target} is none that computes on tensors alone",
            node=node,
            hint="write the model with PyTorch's own operators: those of torch.ops.aten",
        )
    return target


def _is_allowed(parts: list[str]) -> bool:
    if len(parts) == 2 and parts[0] in _SIZES:
        return parts[1] in _SIZES[parts[0]]
    match parts:
        case ["torch", "ops", "aten" | "prims" as library, name, overload]:
            found = getattr(getattr(getattr(torch.ops, library), name, None), overload, None)
            return name not in _WRITES_FILES and isinstance(found, _OVERLOAD)
        case ["torch", "ops", "higher_order", name]:
            return name in _CONTROL_FLOW
    return False


def check_expression(text: str) -> str:
    """Refuse a size that is anything but arithmetic on symbols: sympy would evaluate it."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_a_model("a size that is no expression", text) from error
    if not _is_arithmetic(tree):
        raise _not_a_model("a size that is more than arithmetic", text)
    return text


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.Name(id=name):
            return bool(_SYMBOL.fullmatch(name)) and not name.startswith("__")
        case ast.UnaryOp(operand=operand):
            return _is_arithmetic(operand)
        case ast.BinOp(left=left, right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            values = [keyword.value for keyword in keywords if keyword.arg is not None]
            if name not in _FUNCTIONS or len(values) != len(keywords):
                return False
            everything = (*arguments, *values)
            return all(_is_literal(name, value) or _is_arithmetic(value) for value in everything)
    return False


def _is_literal(function: str, node: ast.expr) -> bool:
    """sympy evaluates strings, but for those that name a symbol or write a decimal."""
    pattern = {"Symbol": _SYMBOL, "Float": _NUMBER}.get(function)
    match node:
        case ast.Constant(value=str(text)):
            return pattern is not None and bool(pattern.fullmatch(text))
    return False


def check_container(text: str) -> str:
    """Refuse a nesting of inputs or outputs that is more than tuples, lists and dicts."""
    try:
        protocol, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged("the nesting of its inputs is no JSON") from error
    if protocol != 1 or not _is_container(tree):
        raise _not_a_model("inputs or outputs in a container of its own", text)
    return text


def _is_container(tree: Any) -> bool:
    if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
        return False
    context = tree["context"]
    keys = json.loads(context) if isinstance(context, str) else context
    plain = keys is None or (
        isinstance(keys, list)
        and all(isinstance(key, str) and _SYMBOL.fullmatch(key) for key in keys)
    )
    return plain and tree["type"] in _CONTAINERS and all(map(_is_container, tree["children_spec"]))


def _not_a_model(what: str, text: str) -> RefusalError:
    return RefusalError(
        "not-a-model",
        f"the program holds {what}: {text[:120]!r}",
        node=text[:120],
        hint=f"no export of a model says this: do not use the file if it is not your own, "
        f"else {SAVE_AGAIN}",
    )
