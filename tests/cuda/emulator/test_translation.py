"""What is rewritten of a kernel's text, and what is not understood. Needs no compiler."""

import re

import pytest

from npbert.cuda.emulator.translation import translate
from npbert.cuda.source import inline_includes

KERNEL = 'extern "C" __global__ void f(float *x, int n) {\n    BODY\n    x[0] = n;\n}\n'


def body(text):
    """The translation of a statement in a kernel, one line."""
    return translate(KERNEL.replace("BODY", text), "f.cu").splitlines()[3].strip()


def test_a_kernel_gets_another_name_and_an_entry():
    text = translate(KERNEL.replace("BODY", "read(x);  // f"), "f.cu")
    assert text.splitlines()[:4] == [
        '#include "emulator.h"',
        '#line 1 "f.cu"',
        'extern "C" void emulator_kernel_f(float *x, int n); EMULATOR_ENTRY(f) '
        'extern "C" __global__ void emulator_kernel_f(float *x, int n) {',
        "    read(x);  // f",
    ]


def test_every_line_stays_where_it_is(tmp_path):
    (tmp_path / "sum.cuh").write_text("// one\n__device__ int two() { return 2; }  // [two]\n")
    source = """// first
#include "sum.cuh"
extern "C" __global__ void
__launch_bounds__(64) f(float *x,  // how many
                        int n) {
    __shared__ float
        a[4]
        [2];
    extern __shared__
    float b[];  /* a
    comment */ x[0] = 1;  // [here]
}
extern "C" __global__ void g(int *y) {
    y[0] = 2;  // [there]
}
"""
    text = translate(inline_includes(source, "f.cu", tmp_path), "f.cu")
    place, found = ("", 0), {}
    for line in text.splitlines():
        directive = re.match(r'#line (\d+) "(.*)"', line)
        place = (directive[2], int(directive[1])) if directive else (place[0], place[1] + 1)
        if directive:
            continue
        mark = re.search(r"// \[(\w+)\]", line)
        if mark:
            found[mark[1]] = (place[0], place[1] - 1)
    assert found == {"two": ("sum.cuh", 2), "here": ("f.cu", 11), "there": ("f.cu", 14)}


@pytest.mark.parametrize(
    ("declaration", "ctype", "variable", "sizes"),
    [
        ("__shared__ float a[32];", "float", "a", "[32]"),
        ("__shared__ float a[4][N + 1];", "float", "a", "[4][N + 1]"),
        ("__shared__ unsigned long long a [ 2 ] ;", "unsigned long long", "a", "[ 2 ]"),
        ("__shared__ double a;", "double", "a", ""),
        ("__shared__ __align__(16) float a[3];", "float", "a", "[3]"),
        ("__shared__ float __align__(16) a[3];", "float", "a", "[3]"),
        ("alignas(16) __shared__ float a[3];", "float", "a", "[3]"),
        ("static __shared__ volatile int a[3];", "volatile int", "a", "[3]"),
        ("__shared__ Columns<4> a[3];", "Columns<4>", "a", "[3]"),
        ("__shared__ space::Pair a[3];", "space::Pair", "a", "[3]"),
    ],
)
def test_shared_arrays(declaration, ctype, variable, sizes):
    assert body(declaration) == (
        f"struct emulator_shared_0 {{ typedef {ctype} type{sizes}; }}; "
        f"auto &{variable} = emulator_shared_array<emulator_shared_0>();"
    )


def test_each_shared_array_is_one_of_its_own():
    text = body("__shared__ int a; __shared__ int b;")
    assert "emulator_shared_0" in text
    assert "auto &b = emulator_shared_array<emulator_shared_1>();" in text


@pytest.mark.parametrize(
    "declaration",
    ["extern __shared__ float4 a[];", "extern  __shared__ __align__(16) float4 a [ ];"],
)
def test_dynamic_shared_memory(declaration):
    assert body(declaration) == "float4 *const a = static_cast<float4 *>(emulator_dynamic_shared());"


def test_comments_and_strings_are_left_alone():
    line = '// __shared__ float a[2], b;  extern "C" __global__ void g()'
    assert body(line) == line
    assert body('printf("__shared__ // {");') == 'printf("__shared__ // {");'
    text = 'printf("//"); __shared__ float a[2];'
    assert body(text) == 'printf("//"); ' + body("__shared__ float a[2];")


@pytest.mark.parametrize(
    "declaration",
    ["__shared__ float a[2], b[3];", "float __shared__ a[2];", "__shared__ float a[sizeof(int[2])];"],
)
def test_declarations_that_are_not_understood(declaration):
    shown = declaration[declaration.index("__shared__") :]
    expected = f"f.cu:2: this declaration of shared memory is not understood: {shown!r}; write one array"
    with pytest.raises(ValueError, match=re.escape(expected)):
        body("int i; " + declaration)


@pytest.mark.parametrize("declaration", ["__shared__ float a[2];", "extern __shared__ float a[];"])
def test_shared_memory_outside_a_function(declaration, tmp_path):
    with pytest.raises(ValueError, match=r"f\.cu:2: shared memory outside a function is not understood: .*a"):
        translate(f"int i;\n{declaration}\n" + KERNEL.replace("BODY", ""), "f.cu")
    (tmp_path / "memory.cuh").write_text(f"// [1]\n\n{declaration}\n")
    source = inline_includes('#include "memory.cuh"\n' + KERNEL, "f.cu", tmp_path)
    with pytest.raises(ValueError, match=r"^memory\.cuh:3: shared memory outside"):
        translate(source, "f.cu")


@pytest.mark.parametrize(
    "source",
    ["", "__global__ void f() {}", '// extern "C" __global__ void f() {}', "int main() { return 0; }"],
)
def test_a_source_without_a_kernel(source):
    with pytest.raises(
        ValueError, match=r'f\.cu: no kernel found; a kernel begins with extern "C" __global__'
    ):
        translate(source, "f.cu")
