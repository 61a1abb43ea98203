"""The text of kernels: includes in place, lines where they were, and what parameters a kernel has."""

import re
import shutil
import subprocess

import pytest

from npbert.cuda import source
from npbert.cuda.source import (
    Parameter,
    blank_comments,
    inline_includes,
    kernel_folder,
    kernel_signatures,
    kernel_source,
    place_of,
)

FILES = {
    "inner.cuh": "#pragma once\nint inner;  // [inner]\n",
    "outer.cuh": '#pragma once\n\n#include "inner.cuh"\nint outer;  // [outer]\n',
    "last.cuh": "int last;  // [last]",  # without a newline
}
MAIN = '// a kernel\n#include "outer.cuh"\n  #include "inner.cuh"\nint main_;  // [main]\n#include "last.cuh"'


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def expected_place(mark):
    for name, text in {**FILES, "k.cu": MAIN}.items():
        if f"[{mark}]" in text:
            return f"{name}:{text[: text.index(f'[{mark}]')].count(chr(10)) + 1}"
    raise AssertionError(mark)


def test_includes_are_put_in_place_once(folder):
    text = inline_includes(MAIN, "k.cu", folder)
    assert "#include" not in text
    for word in ("inner", "outer", "main_", "last"):
        assert text.count(f"int {word};") == 1
    assert (
        text.index("int inner;")
        < text.index("int outer;")
        < text.index("int main_;")
        < text.index("int last;")
    )


def test_lines_keep_their_names(folder):
    text = inline_includes(MAIN, "k.cu", folder)
    for mark in ("inner", "outer", "main", "last"):
        assert place_of(text, text.index(f"[{mark}]"), "?") == expected_place(mark)
    assert place_of("a\nb\nc", 4, "plain.cu") == "plain.cu:3"


def test_a_preprocessor_sees_the_same_lines(folder):
    program = shutil.which("cpp")
    if program is None:
        pytest.skip("no C++ compiler: its preprocessor is not there")
    text = inline_includes(MAIN, "k.cu", folder)
    for mark in ("inner", "outer", "main", "last"):
        marked = text.replace(f"// [{mark}]", "__FILE__ __LINE__")
        seen = subprocess.run([program, "-P", "-w"], input=marked, capture_output=True, text=True, check=True)
        file, line = expected_place(mark).split(":")
        assert re.search(rf'"{file}" {line}\b', seen.stdout)


def test_other_includes_are_left_alone(folder):
    text = '#include <cuda_fp16.h>\n// #include "outer.cuh"\n'
    assert inline_includes(text, "k.cu", folder) == '#line 1 "k.cu"\n' + text


def test_a_file_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError, match=re.escape("elsewhere.cuh")):
        inline_includes('#include "elsewhere.cuh"', "k.cu", folder)
    with pytest.raises(FileNotFoundError, match=re.escape("elsewhere.cu")):
        kernel_source("elsewhere.cu")


def test_where_the_kernels_are(monkeypatch, tmp_path):
    """Inside the package where it is installed, else beside it."""
    package = tmp_path / "npbert" / "cuda"
    monkeypatch.setattr(source, "__file__", str(package / "source.py"))
    with pytest.raises(FileNotFoundError, match=r"no kernels in .*/npbert/kernels nor in .*/kernels"):
        kernel_folder()
    for folder in (tmp_path / "kernels", tmp_path / "npbert" / "kernels"):
        folder.mkdir(parents=True)
        assert kernel_folder() != folder if any(folder.parent.glob("kernels/*.cu")) else True
        (folder / "f.cu").write_text("")
        assert kernel_folder() == folder


def test_every_kernel_file_is_understood():
    files = sorted(path.name for path in kernel_folder().glob("*.cu"))
    assert "layernorm.cu" in files
    for file in files:
        kernels = kernel_signatures(kernel_source(file))
        assert len(kernels) >= 2, file  # forward and backward
        assert all(parameters for parameters in kernels.values()), file


def test_comments_become_spaces():
    text = 'a /* b\n"c" */ "d // e /* f" // g "h\ni \'"\' /* j */ k'
    blank = blank_comments(text)
    assert len(blank) == len(text)
    assert blank.splitlines()[1].strip() == '"d // e /* f"'
    assert [i for i, c in enumerate(blank) if c == "\n"] == [i for i, c in enumerate(text) if c == "\n"]
    assert blank_comments('f("a // b");', strings=True) == "f(        );"
    assert blank_comments(r'"a \" // b" // c').rstrip() == r'"a \" // b"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float *x", Parameter("x", "float", True, False)),
        ("const float *x", Parameter("x", "float", True, True)),
        ("float const *x", Parameter("x", "float", True, True)),
        ("const REAL *__restrict__ x", Parameter("x", "REAL", True, True)),
        ("REAL* __restrict__ x", Parameter("x", "REAL", True, False)),
        ("float *const x", Parameter("x", "float", True, False)),
        ("const float *const x", Parameter("x", "float", True, True)),
        ("volatile int *x", Parameter("x", "int", True, False)),
        ("float x[]", Parameter("x", "float", True, False)),
        ("const float x[32]", Parameter("x", "float", True, True)),
        ("float **x", Parameter("x", "float *", True, False)),
        ("unsigned long long n", Parameter("n", "unsigned long long", False, False)),
        ("const int n", Parameter("n", "int", False, True)),
        ("unsigned   char\n*mask", Parameter("mask", "unsigned char", True, False)),
    ],
)
def test_parameters(text, expected):
    signatures = kernel_signatures(f'extern "C" __global__ void f(int first, {text}) {{}}')
    assert signatures == {"f": (Parameter("first", "int", False, False), expected)}


def test_kernels():
    text = """
// extern "C" __global__ void commented(int n) {}
__global__ void without_a_name_for_linkers(int n) {}
extern "C" __device__ void no_kernel(int n) {}
extern "C" __global__ void f(
    float *x,  // (a, b), says the comment
    int n /* how many, */) {}
extern "C" __global__ void __launch_bounds__(128) g() {}
extern "C" __global__ __launch_bounds__(128, 2) void h(void) {}
"""
    signatures = kernel_signatures(text)
    assert list(signatures) == ["f", "g", "h"]
    assert [parameter.name for parameter in signatures["f"]] == ["x", "n"]
    assert signatures["g"] == signatures["h"] == ()
