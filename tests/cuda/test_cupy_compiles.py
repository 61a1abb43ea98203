"""CuPy compiles every kernel, with the very options that it is given for a launch; nothing runs.

CuPy compiles when a kernel is first launched, for the device that there is. Here the architecture is named,
and no device needed; all other steps are CuPy's own. They are not public, and may have other names in another
release of CuPy: then these tests fail, and no user is concerned.
"""

from types import ModuleType

import pytest

from npbert.cuda import runtime
from npbert.cuda.facts.problems import SMALL, problems
from npbert.cuda.facts.variants import label
from npbert.cuda.source import kernel_folder, kernel_signatures

ARCHITECTURE = "80"  # the oldest that has all that kernels use
HEAD_WIDTH = 64


@pytest.fixture(scope="module")
def programs():
    """Every text with every set of macros that launchers compile it with."""
    launches = (
        launch for problem in problems(SMALL, head_widths=(HEAD_WIDTH,)) for launch in problem.launches
    )
    return list(dict.fromkeys(launch.program for launch in launches))


@pytest.fixture
def cupy_compiler(monkeypatch) -> ModuleType:
    """CuPy's module ``compiler``, which does not ask a device for its architecture."""
    try:
        import cupy
        from cupy.cuda import compiler
    except ImportError:
        pytest.skip("CuPy is not installed: pip install 'npbert[cuda13]'")
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"CuPy does not find NVRTC: pip install 'npbert[cuda13]' ({error})")
    monkeypatch.setattr(
        compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: (f"-arch=sm_{arch}", "cubin")
    )
    return compiler


def compile_with(cupy_compiler, source, options, name):
    """What RawKernel does at its first launch, up to the machine code."""
    from cupy._core import core

    options = (*core.assemble_cupy_compiler_options(options), "-ftz=true")
    cubin, _ = cupy_compiler.compile_using_nvrtc(source, options, ARCHITECTURE, name)
    return cubin


def test_launchers_compile_every_file(programs):
    assert {program.name for program in programs} == {path.name for path in kernel_folder().glob("*.cu")}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_kernel_compiles(programs, cupy_compiler, dtype):
    chosen = [program for program in programs if label(program).split()[0] == dtype]
    assert len(chosen) >= 5
    for program in chosen:
        options = runtime.cupy_options(program.defines)
        cubin = compile_with(cupy_compiler, program.source, options, program.name)
        for kernel in kernel_signatures(program.source):
            assert f".text.{kernel}\0".encode() in cubin, f"{program.name}: {kernel}"


def test_a_mistake_is_found(cupy_compiler):
    source = 'extern "C" __global__ void wrong(REAL *x) { x[0] = y; }'
    options = runtime.cupy_options((("REAL", "float"),))
    with pytest.raises(cupy_compiler.CompileException, match='identifier "y" is undefined'):
        compile_with(cupy_compiler, source, options, "wrong.cu")
