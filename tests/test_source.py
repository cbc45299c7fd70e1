"""Our own source runs no text as code and unpacks no objects."""

import ast

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
