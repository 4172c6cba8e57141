"""The shape of the code: short files and functions, each module introduced, nothing undone."""

import ast
import re
import textwrap

import pytest
from support import slow_siblings
from support.checkout import ROOT

MODULES = sorted((ROOT / "ndekit").rglob("*.py"))
MAX_FILE = 300
MAX_BODY = 40

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTED = FUNCTION | ast.ClassDef


def name_of(path):
    return str(path.relative_to(ROOT))


def body_lines(function):
    """The lines of a function's body, without its docstring and those of what it defines inside."""
    docstrings = [
        node.body[0]
        for node in ast.walk(function)
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    ]
    statements = [node for node in function.body if node not in docstrings]
    if not statements:
        return 0
    first = statements[0].lineno
    inner = [node for node in docstrings if node.lineno >= first]
    return function.end_lineno - first + 1 - sum(d.end_lineno - d.lineno + 1 for d in inner)


def long_functions(source):
    return [
        f"line {node.lineno}: `{node.name}` has {body_lines(node)} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, FUNCTION) and body_lines(node) >= MAX_BODY
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_file_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines < MAX_FILE, f"{lines} lines: which two things is it?"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short(path):
    long = long_functions(path.read_text())
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_starts_with_its_purpose(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring and docstring.strip(), "the first line of a module says what it is for"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_left_undone(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    undone = [f"{n}: {line.strip()}" for n, line in lines if re.search(r"\b(TODO|FIXME)\b", line)]
    assert not undone, "\n".join(undone)


def test_docstrings_are_not_counted():
    source = '''
        def outer():
            """One
            two."""
            a = 1

            def inner():
                """Three
                four."""
                return a

            return inner
    '''
    (outer,) = ast.parse(textwrap.dedent(source)).body
    assert body_lines(outer) == 6


def test_a_function_that_is_only_a_docstring_has_no_body():
    (function,) = ast.parse('def f():\n    """Nothing."""').body
    assert body_lines(function) == 0


@pytest.mark.parametrize(("lines", "caught"), [(MAX_BODY - 1, False), (MAX_BODY, True)])
def test_a_long_function_is_caught(lines, caught):
    source = "def f():\n" + "    pass\n" * lines
    assert bool(long_functions(source)) is caught


@pytest.mark.parametrize("path", slow_siblings.SLOW)
def test_tests_that_are_left_to_the_slow_run_are_there(path):
    source = (ROOT / "tests" / path).read_text()
    for test, parameters in slow_siblings.SLOW[path].items():
        assert f"def {test}(" in source, f"{test} is no longer in {path}"
        re.compile(parameters)
    first = next(iter(slow_siblings.SLOW[path]))
    assert not slow_siblings.is_slow(path, f"{first}_otherwise")
    assert not slow_siblings.is_slow("house/test_house.py", first)
