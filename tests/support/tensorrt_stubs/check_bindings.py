"""Hold our use of TensorRT against the vendor's own bindings; run with stub libraries beside it.

`python check_bindings.py SOURCE.py …` prints `{"version", "used", "problems"}`. What is used is
derived from the sources: attributes of `trt`, and members of every variable whose type an
annotation, a constructor or the return type of a method (pybind11's docstring) tells. A member that
looks like TensorRT's on a variable of unknown type is a problem, so that nothing is left out.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import tensorrt_bindings as trt

Scope = dict[str, Any]
_TYPE = r"(?:tensorrt_bindings\.tensorrt|nvinfer1|nvonnxparser)(?:\.|::)(\w+)"
ORDINARY = {name for kind in (dict, list, str, bytes) for name in dir(kind)} | {"nbytes"}
"""Members of Python's own types, and numpy's."""
_RENAMED = {"IParserError": "ParserError", "IParser": "OnnxParser"}


class Checker(ast.NodeVisitor):
    """Walks a module in order, knowing the TensorRT type of each name as it goes."""

    def __init__(self, tree: ast.Module, own: set[str]) -> None:
        self.used: set[str] = set()
        self.problems: list[str] = []
        self._own = own
        self._scope: Scope = {}
        self._fields: Scope = {}
        members = {m for c in vars(trt).values() if isinstance(c, type) for m in dir(c)}
        self._foreign = {m for m in members if not m.startswith("__")} - own - ORDINARY
        self._returns = {
            node.name: node.returns for node in tree.body if isinstance(node, ast.FunctionDef)
        }

    # -- what names are ----------------------------------------------------------------------

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            cls = self._type_of(base)
            if isinstance(cls, type):
                self._check_overrides(node, cls)
        self._fields = {}
        # `__init__` first: it says what the fields are.
        for statement in node.body:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._scope = self._scope, dict(self._scope)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            if argument.annotation is not None:
                self._scope[argument.arg] = self._annotated(argument.annotation)
        for statement in node.body:
            self.visit(statement)
        self._scope = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            told = self._annotated(node.annotation) or self._type_of(node.value)
            self._assign(node.target, told)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=True):
                    self._assign(name, self._type_of(value))
            else:
                self._assign(target, self._type_of(node.value))

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        element = self._element(node.iter)
        self._assign(node.target, element)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def _comprehension(self, node: Any) -> None:
        outer, self._scope = self._scope, dict(self._scope)
        for generator in node.generators:
            self.visit(generator.iter)
            self._assign(generator.target, self._element(generator.iter))
            for condition in generator.ifs:
                self.visit(condition)
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                self.visit(getattr(node, part))
        self._scope = outer

    visit_ListComp = visit_GeneratorExp = visit_DictComp = visit_SetComp = _comprehension  # noqa: N815

    def _assign(self, target: ast.expr, kind: Any) -> None:
        if isinstance(target, ast.Name):
            self._scope[target.id] = kind
        elif isinstance(target, ast.Attribute):
            if isinstance(target.value, ast.Name) and target.value.id == "self":
                if kind is not None:
                    self._fields[target.attr] = kind
                return
            owner = self._type_of(target.value)
            if isinstance(owner, type):
                self._require(owner, target.attr, target, writes=True)
            self.visit(target)

    # -- what is used ------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self._type_of(node.value)
        if owner is trt or isinstance(owner, type):
            self._require(owner, node.attr, node)
        elif node.attr in self._foreign and not isinstance(node.value, ast.Constant):
            at = f"line {node.lineno}: {ast.unparse(node)}"
            self.problems.append(f"{at}: of which TensorRT type? annotate it")
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            owner = self._type_of(node.func.value)
            method = getattr(owner, node.func.attr, None) if owner is not None else None
            if isinstance(method, type):
                method = method.__init__
            if method is not None:
                self._check_call(node, method)
        self.generic_visit(node)

    def _require(self, owner: Any, name: str, node: ast.AST, *, writes: bool = False) -> None:
        label = "" if owner is trt else f"{owner.__qualname__}."
        self.used.add(label + name)
        if not hasattr(owner, name):
            self.problems.append(f"line {node.lineno}: {label}{name} does not exist")  # type: ignore[attr-defined]
        elif writes and getattr(vars(owner).get(name), "fset", None) is None:
            self.problems.append(f"line {node.lineno}: {label}{name} cannot be set")  # type: ignore[attr-defined]

    def _check_call(self, node: ast.Call, method: Any) -> None:
        text = ast.unparse(node.func)
        forms = signatures(method)
        names = [keyword.arg for keyword in node.keywords]
        given = len(node.args)
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        explicit_self = text.endswith(".__init__")
        positional = given - explicit_self
        for parameters, required in forms:
            if starred or (
                positional <= len(parameters)
                and set(names) <= set(parameters[positional:])
                and set(required) <= {*parameters[:positional], *names}
            ):
                return
        if forms:
            self.problems.append(
                f"line {node.lineno}: {text}({given} arguments, {names}) fits none of {forms}"
            )

    def _check_overrides(self, node: ast.ClassDef, base: type) -> None:
        for function in node.body:
            if isinstance(function, ast.FunctionDef) and function.name in vars(base):
                if function.name == "__init__":
                    continue
                self.used.add(f"{base.__qualname__}.{function.name}")
                names = [argument.arg for argument in function.args.args[1:]]
                if names not in [
                    parameters for parameters, _ in signatures(vars(base)[function.name])
                ]:
                    self.problems.append(f"{base.__qualname__}.{function.name} takes not {names}")
        self._own |= {f.name for f in node.body if isinstance(f, ast.FunctionDef)}

    # -- types -------------------------------------------------------------------------------

    def _annotated(self, annotation: ast.expr) -> Any:
        """The TensorRT type of an annotation; of `X | None`, X."""
        if isinstance(annotation, ast.BinOp):
            return self._annotated(annotation.left)
        return self._type_of(annotation)

    def _type_of(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return trt if node.id == "trt" else self._scope.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self._fields.get(node.attr)
            owner = self._type_of(node.value)
            if owner is None:
                return None
            found = getattr(owner, node.attr, None)
            if isinstance(found, type) or owner is trt:
                return found
            return None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = self._type_of(node.func.value)
            found = getattr(owner, node.func.attr, None) if owner is not None else None
            return found if isinstance(found, type) else returned(found)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            annotation = self._returns.get(node.func.id)
            return None if annotation is None else self._annotated(annotation)
        if isinstance(node, ast.ListComp):
            return ("list", self._type_of(node.elt))
        return None

    def _element(self, node: ast.expr) -> Any:
        kind = self._type_of(node)
        return kind[1] if isinstance(kind, tuple) else None


def signatures(method: Any) -> list[tuple[list[str], list[str]]]:
    """Parameters without `self`, and those of them without a default, of each overload."""
    forms = []
    for line in (method.__doc__ or "").splitlines():
        match = re.match(r"(?:\d+\. )?(\w+)\((self: .*)\) ->", line.strip())
        if match:
            parts = re.split(r", (?=\w+: )", match[2])[1:]
            names = [part.partition(":")[0] for part in parts]
            forms.append((names, [n for n, p in zip(names, parts, strict=True) if " = " not in p]))
    return forms


def returned(method: Any) -> Any:
    """The TensorRT class that a method returns, by its docstring."""
    match = re.search(rf"\) -> {_TYPE}", getattr(method, "__doc__", None) or "")
    return getattr(trt, _RENAMED.get(match[1], match[1]), None) if match else None


def imports_tensorrt(tree: ast.Module) -> bool:
    """Whether a module has `import tensorrt as trt`, however deep."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import))
    return any(alias.name == "tensorrt" for node in imports for alias in node.names)


def own_names(trees: list[ast.Module]) -> set[str]:
    """What the sources define or import themselves: no members of TensorRT's."""
    names: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    names.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def main(paths: list[str]) -> None:
    """Check those of the sources that import TensorRT; print the result."""
    trees = {path: ast.parse(Path(path).read_text(encoding="utf-8")) for path in paths}
    used: set[str] = set()
    problems: list[str] = []
    own = own_names(list(trees.values()))
    users = {path: tree for path, tree in trees.items() if imports_tensorrt(tree)}
    for path, tree in users.items():
        checker = Checker(tree, own)
        checker.visit(tree)
        used |= checker.used
        problems += [f"{Path(path).name}: {problem}" for problem in checker.problems]
    result = {
        "version": trt.__version__,
        "sources": sorted(users),
        "used": sorted(used),
        "problems": problems,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
