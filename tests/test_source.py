"""What holds of the text of our own source: it runs no text as code, unpacks no objects, and can be read."""

import ast
import collections

import pytest
from kit.places import ROOT

CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load", "yaml.load", "yaml.unsafe_load", "os.system"}
KEYWORDS = {("allow_pickle", True), ("shell", True), ("safe_mode", False)}
FILES = sorted(file for folder in ("tfctr", "examples", "export", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
HOSTILE = [*(f"{call}(x)" for call in sorted(CALLS)), "np.load(x, allow_pickle=True)", "f(shell=True)", "f(safe_mode=False)"]


def found_in(source):
    """The calls in a source that are not allowed."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [ast.unparse(call) for call in calls if ast.unparse(call.func) in CALLS]
    given = [(keyword.arg, getattr(keyword.value, "value", None)) for call in calls for keyword in call.keywords]
    return named + [pair for pair in given if pair in KEYWORDS] + ["unsafe"] * ("enable_unsafe_deserialization" in source)


@pytest.mark.parametrize("source", HOSTILE)
def test_what_is_looked_for_is_found(source):
    assert found_in(source)


def test_the_source_has_none():
    assert len(FILES) > 150
    assert {str(file): found for file in FILES if (found := found_in(file.read_text(encoding="utf-8")))} == {}


# no block of lines stands twice


def told(tree):
    """The lines that may be like others: signatures, imports and docstrings, which are read one at a time."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.update(range(node.lineno, node.body[0].lineno))
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def blocks(source, length=6):
    """All runs of so many lines, without what is `told`."""
    told_lines = told(ast.parse(source))
    lines = [line.strip() for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in told_lines]
    return [tuple(lines[start : start + length]) for start in range(len(lines) - length + 1)]


def repeated(sources):
    counts = collections.Counter(block for source in sources for block in blocks(source))
    return [block for block, count in counts.items() if count > 1]


def test_a_repeated_block_is_found():
    body = "".join(f"x{number} = {number}\n" for number in range(6))
    assert len(repeated([body, f"y = 1\n{body}"])) == 1
    assert repeated([body, body.replace("x3", "z3")]) == []


def test_no_block_of_six_lines_stands_twice():
    assert repeated(file.read_text(encoding="utf-8") for file in FILES if file.is_relative_to(ROOT / "tfctr")) == []


# nothing is too long to be read at once


def long_functions(source, most=50):
    """Functions whose statements take more lines, without signature and docstring."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = {node.name: node.body[1:] if ast.get_docstring(node) else node.body for node in functions}
    return [name for name, body in bodies.items() if body and body[-1].end_lineno - body[0].lineno >= most]


def test_a_long_function_is_found():
    body = "    x = 1\n" * 50
    assert long_functions(f"def f():\n    '''Text.'''\n{body}") == []
    assert long_functions(f"def f():\n{body}    y = 1\n") == ["f"]


def test_no_function_has_over_50_lines_and_no_file_over_400():
    sources = {str(file): file.read_text(encoding="utf-8") for file in FILES if file.is_relative_to(ROOT / "tfctr")}
    assert {file: long for file, source in sources.items() if (long := long_functions(source))} == {}
    assert [file for file, source in sources.items() if source.count("\n") > 400] == []
