"""Every public function, method and constructor says what it takes and what it gives."""

import ast

from kit.places import ROOT


def is_public(name):
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def functions(node, path=""):
    """`(name, function)` of the functions of a module and of its classes; what stands within a function is its own affair."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, f"{path}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}{child.name}", child
        elif isinstance(child, ast.If | ast.Try):
            yield from functions(child, path)


def is_annotated(function):
    args = function.args
    given = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
    return function.returns is not None and all(arg.annotation or arg.arg in ("self", "cls") for arg in given)


def missing_in(source):
    return [name for name, function in functions(ast.parse(source)) if is_public(function.name) and not is_annotated(function)]


def test_what_lacks_is_found():
    source = "def f(x: int): ...\ndef g(x) -> int: ...\nclass A:\n  def __init__(self, *, a): ...\n  def _h(self): ...\n"
    assert missing_in(source) == ["f", "g", "A.__init__"]


def test_the_source_lacks_none():
    files = sorted((ROOT / "tfctr").rglob("*.py"))
    assert len(files) > 150
    assert {str(file): missing for file in files if (missing := missing_in(file.read_text(encoding="utf-8")))} == {}
