"""What the ops and the engine use of CuPy exists in the installed CuPy, and takes those arguments.

An op calls CuPy through ``xp``, and no test without a device can run such a call. But a function that is
missing, or a keyword that it does not take, can be seen without one: the calls are collected from the source
text and held against the signatures. `import cupy` needs no driver.
"""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

import npbert

PACKAGE = Path(npbert.__file__).parent
NUMPY_ONLY = [PACKAGE / "cuda" / "emulator", PACKAGE / "cuda" / "facts"]
BOTH_MEET = PACKAGE / "ops" / "array_module.py"
TEXTBOOK = [
    *sorted((PACKAGE / "ops").glob("*.py")),
    *sorted((PACKAGE / "heads").glob("*.py")),
    PACKAGE / "model.py",
    PACKAGE / "pooling.py",
]
ENGINE = [
    path
    for path in sorted((PACKAGE / "cuda").rglob("*.py"))
    if not any(folder in path.parents for folder in NUMPY_ONLY)
]

# Attributes that only NumPy's arrays have, and that are asked of those alone.
OF_NUMPY = {"ctypes"}


class Use(NamedTuple):
    """A place where something of CuPy's is used."""

    name: str  # "cupy.where", "cupy.add.at", "cupy.ndarray.sum"
    place: str  # "file:line"
    positional: int | None = None  # how many arguments; None: not a call, or with a starred argument
    keywords: tuple[str, ...] | None = None  # None: not a call


# --- what is used ---------------------------------------------------------------------------------------


def uses(source: str, file: str) -> list[Use]:
    """Collect ``xp.f(...)``, ``array_module(x).f(...)``, ``cupy.f(...)`` and the methods of arrays."""
    tree = ast.parse(source)
    finder = _Finder(tree, file)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = finder.imported_from_cupy
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name) or isinstance(node.ctx, ast.Store):
            continue
        name = finder.cupy_name(node)
        if name is not None and id(node) in inner:
            continue  # the xp.add of xp.add.at
        name = name or finder.array_attribute(node)
        if name not in (None, "cupy", "cupyx"):
            found.append(_use(name, f"{file}:{node.lineno}", calls.get(id(node))))
    return found


def _use(name: str, place: str, call: ast.Call | None) -> Use:
    if call is None:
        return Use(name, place)
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    keywords = tuple(keyword.arg for keyword in call.keywords if keyword.arg is not None)
    return Use(name, place, None if starred else len(call.args), keywords)


class _Finder:
    """Tells which expressions of a file are CuPy's."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        self.imported = {alias.asname or alias.name for node in imports for alias in node.names}
        self.names = {"xp": "cupy", "cupy": "cupy", "cupyx": "cupyx"}  # what names of this file stand for
        self.imported_from_cupy: list[Use] = []
        for node in imports:
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                full = prefix + alias.name
                if full.split(".")[0] in ("cupy", "cupyx"):
                    self.imported_from_cupy.append(Use(full, f"{file}:{node.lineno}"))
                    if prefix or alias.asname:
                        self.names[alias.asname or alias.name] = full
        for node in ast.walk(tree):  # where = array_module(x).where
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = self.cupy_name(node.value)
                if name:
                    self.names[node.targets[0].id] = name

    def cupy_name(self, node: ast.expr) -> str | None:
        """Return ``cupy.add.at`` for ``xp.add.at``, ``cupy`` for ``xp``, None for what is not CuPy's."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Call):
            is_module = isinstance(node.func, ast.Name) and node.func.id == "array_module"
            return "cupy" if is_module else None
        if isinstance(node, ast.Attribute):
            base = self.cupy_name(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None

    def array_attribute(self, node: ast.expr) -> str | None:
        """Return ``cupy.ndarray.sum`` for ``x.sum``: whatever is not a module may be an array."""
        if not isinstance(node, ast.Attribute) or not hasattr(np.ndarray, node.attr):
            return None
        of_module = isinstance(node.value, ast.Name) and node.value.id in self.imported
        if of_module or node.attr.startswith("_") or node.attr in OF_NUMPY:
            return None
        return f"cupy.ndarray.{node.attr}"


def all_uses() -> list[Use]:
    return [
        use
        for path in (*TEXTBOOK, *ENGINE)
        for use in uses(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE.parent)))
    ]


# --- what there is --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cupy() -> ModuleType:
    try:
        import cupy
    except ImportError:
        pytest.skip("CuPy is not installed: pip install 'npbert[cuda13]'")
    return cupy


def complaints(cupy: ModuleType, used: list[Use]) -> Iterator[str]:
    """Say what the installed CuPy does not have, or does not take."""
    for use in used:
        thing = _look_up(use.name)
        if thing is None:
            yield f"{use.place}: there is no {use.name}"
        elif use.keywords is not None:
            try:
                _bind(signature(cupy, thing), use)
            except TypeError as error:
                yield f"{use.place}: {use.name}: {error}"


def _look_up(name: str) -> object | None:
    try:
        return pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return None


def _bind(known: inspect.Signature, use: Use) -> None:
    keywords = dict.fromkeys(use.keywords or ())
    if use.positional is None:
        known.bind_partial(**keywords)
    else:
        known.bind(*[None] * use.positional, **keywords)


def signature(cupy: ModuleType, function: Callable) -> inspect.Signature:
    """The signature of a function of CuPy's, without ``self``.

    A ufunc has none; what it takes is documented. A method that Cython compiled has one in its docstring.
    """
    if isinstance(function, cupy.ufunc):
        return _ufunc_signature(function)
    try:
        known = inspect.signature(function)
    except ValueError:
        known = _signature_in_docstring(function)
    parameters = list(known.parameters.values())
    is_method = bool(parameters) and parameters[0].name == "self"
    return known.replace(parameters=parameters[is_method:])


def _ufunc_signature(ufunc: Callable) -> inspect.Signature:
    kind = inspect.Parameter
    inputs = [kind(f"x{i}", kind.POSITIONAL_ONLY) for i in range(ufunc.nin)]
    out = kind("out", kind.POSITIONAL_OR_KEYWORD, default=None)
    keywords = [kind(name, kind.KEYWORD_ONLY, default=None) for name in ("dtype", "casting")]
    return inspect.Signature([*inputs, out, *keywords])


def _signature_in_docstring(function: Callable) -> inspect.Signature:
    first_line = (function.__doc__ or "").split("\n", 1)[0]
    match = re.match(rf"(?:\w+\.)?{function.__name__}\((.*)\)", first_line)
    if match is None:
        raise TypeError("its signature is not known")
    without_c_types = re.sub(r"\b\w+ (\w+)", r"\1", match[1])  # Py_ssize_t axis1
    return inspect.signature(eval(f"lambda {without_c_types}: None"))


# --- the tests ------------------------------------------------------------------------------------------


def test_something_is_found():
    names = {use.name.removeprefix("cupy.") for use in all_uses()}
    assert {"where", "add.at", "einsum", "take_along_axis", "inf", "RawKernel"} <= names
    assert {"ndarray.astype", "ndarray.T"} <= names
    assert len(names) > 40


def test_cupy_has_all_that_is_used(cupy):
    assert list(complaints(cupy, all_uses())) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("xp.no_such_function(x)", "there is no cupy.no_such_function"),
        ("xp.no_such_constant", "there is no cupy.no_such_constant"),
        ("xp.add.no_such_method(x)", "there is no cupy.add.no_such_method"),
        ("array_module(x).no_such_function(x)", "there is no cupy.no_such_function"),
        ("from cupyx.profiler import no_such_function", "there is no cupyx.profiler.no_such_function"),
        ("import cupyx.profiler as p\np.benchmark(f, repeats=3)", "unexpected keyword argument 'repeats'"),
        ("f = xp.no_such_function", "there is no cupy.no_such_function"),
        ("cupy.cuda.no_such_function()", "there is no cupy.cuda.no_such_function"),
        ("xp.where(c, x, y, out)", "too many positional arguments"),
        ("f = array_module(x).where\nf(c, x, y, out)", "too many positional arguments"),
        ("cupy.RawKernel(text, name, flags=())", "unexpected keyword argument 'flags'"),
        ("cupy.cuda.runtime.getDeviceProperties()", "missing a required argument"),
        ("xp.zeros(3, dtyp=d)", "unexpected keyword argument 'dtyp'"),
        ("xp.searchsorted(x)", "missing a required argument"),
        ("xp.sum(*x, axes=0)", "unexpected keyword argument 'axes'"),
        ("xp.exp(x, y, z)", "too many positional arguments"),
        ("xp.exp(x, where=mask)", "unexpected keyword argument 'where'"),
        ("x.sum(axes=1)", "unexpected keyword argument 'axes'"),
        ("x.real.sum(axis=1, where=mask)", "unexpected keyword argument 'where'"),
        ("x.swapaxes(1)", "missing a required argument"),
        ("x.to_device('cpu')", "there is no cupy.ndarray.to_device"),
    ],
)
def test_what_is_not_there_is_seen(cupy, line, complaint):
    found = list(complaints(cupy, uses(line, "an_op.py")))
    assert len(found) == 1
    assert found[0].startswith(f"an_op.py:{line.count(chr(10)) + 1}: ")
    assert complaint in found[0]


@pytest.mark.parametrize(
    "line",
    [
        "xp.where(c, x, y)",
        "xp.zeros(shape, dtype=x.dtype)",
        "xp.exp(x, out=y)",
        "xp.maximum(x, y, dtype=d)",
        "xp.einsum('ij,jk->ik', *arrays)",
        "x.astype(d, copy=False)",
        "x.reshape(-1, 3)",
        "x.sum(axis=-1, keepdims=True)",
        "math.prod(shape)\nimport math",
        "text.split()",
    ],
)
def test_what_is_there_is_accepted(cupy, line):
    assert list(complaints(cupy, uses(line, "an_op.py"))) == []


def test_every_ufunc_computes_in_the_precisions_of_the_ops(cupy):
    """CuPy takes the first loop that holds the arguments: without one of float32, that of float64."""
    ufuncs = {use.name for use in all_uses() if isinstance(_look_up(use.name), cupy.ufunc)}
    assert ufuncs
    for name in ufuncs:
        ufunc = _look_up(name)
        loops = {loop.split("->")[0] for loop in ufunc.types}
        assert {dtype * ufunc.nin for dtype in "efd"} <= loops, name


def test_the_textbook_takes_nothing_but_dtypes_from_numpy():
    """A function of NumPy's refuses CuPy's arrays; a dtype of NumPy's is CuPy's too."""
    for path in (path for path in TEXTBOOK if path != BOTH_MEET):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                thing = getattr(np, node.attr)
                assert isinstance(thing, type) and issubclass(thing, np.generic), f"{path}:{node.lineno}"


def test_sorts_are_of_the_one_kind_that_cupy_has():
    for path in (*TEXTBOOK, *ENGINE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "kind" and isinstance(node.value, ast.Constant):
                assert node.value.value == "stable", f"{path}:{node.lineno}"


def test_only_sums_are_scattered():
    """``ufunc.at`` is a method of every ufunc of CuPy's, and raises NotImplementedError in most."""
    scattered = {use.name for use in all_uses() if use.name.endswith(".at")}
    assert scattered == {"cupy.add.at"}
