"""NVIDIA's compiler from PyPI: found, or what to install; sources that do not compile."""

from importlib.metadata import PackageNotFoundError

import pytest

from npbert.cuda.facts import toolchain as tools
from npbert.cuda.facts.toolchain import ToolchainError, compile_cubin, disassemble, require_toolchain
from npbert.errors import BackendError

HALVES = """
#include <cuda_fp16.h>
extern "C" __global__ void twice(const __half *x, __half *y) {
    y[threadIdx.x] = __float2half_rn(FACTOR * __half2float(x[threadIdx.x]));
}
"""


class Installed:
    """Stands for a package on the disk."""

    def __init__(self, version, files):
        self.version = version
        self.files = files


@pytest.fixture
def packages(monkeypatch):
    """Replace the installed packages by those in a dictionary."""
    installed = {}

    def distribution(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(tools, "distribution", distribution)
    tools.installed_file.cache_clear()
    tools._nvrtc.cache_clear()
    yield installed
    tools.installed_file.cache_clear()
    tools._nvrtc.cache_clear()


def test_a_missing_package_is_named(packages):
    assert issubclass(ToolchainError, BackendError)
    for package in (tools.HEADERS, tools.DISASSEMBLER):
        with pytest.raises(ToolchainError, match=rf'{package} is not installed; pip install "npbert\[cuda'):
            require_toolchain()
        path = type("File", (), {"locate": lambda self: "/somewhere"})
        names = {tools.HEADERS: "cuda_fp16.h", tools.DISASSEMBLER: "nvdisasm"}
        path.name = names[package]
        packages[package] = Installed("13.0", [path()])
    with pytest.raises(ToolchainError, match=f"{tools.COMPILER} is not installed"):
        require_toolchain()
    with pytest.raises(ToolchainError, match=f"{tools.COMPILER} is not installed"):
        compile_cubin("", "empty.cu", "sm_80")


@pytest.mark.parametrize("version", ["12.9.86", "14.0"])
def test_another_major_version(packages, version):
    packages[tools.COMPILER] = Installed(version, [])
    with pytest.raises(
        ToolchainError, match=f"{tools.COMPILER} {version} is installed, version 13 is needed"
    ):
        compile_cubin("", "empty.cu", "sm_80")


def test_a_package_for_another_system(packages):
    packages[tools.COMPILER] = Installed("13.0", [])
    with pytest.raises(ToolchainError, match=rf"the installed {tools.COMPILER} has no file libnvrtc\.so"):
        compile_cubin("", "empty.cu", "sm_80")
    packages[tools.HEADERS] = Installed("13.0", None)  # installed by something that keeps no record
    with pytest.raises(ToolchainError, match=rf"the installed {tools.HEADERS} has no file cuda_fp16\.h"):
        require_toolchain()


def test_a_library_that_cannot_be_loaded(packages, tmp_path):
    path = tmp_path / "libnvrtc.so.13"
    path.write_text("not a library")
    file = type("File", (), {"name": path.name, "locate": lambda self: path})()
    packages[tools.COMPILER] = Installed("13.0", [file])
    with pytest.raises(ToolchainError, match=r"libnvrtc\.so\.13 of nvidia-cuda-nvrtc cannot be loaded"):
        compile_cubin("", "empty.cu", "sm_80")


def test_compile(toolchain):
    assert toolchain.startswith("13.")
    cubin = compile_cubin(HALVES, "twice.cu", "sm_80", ["-DFACTOR=2.0f"])
    assert cubin.image.startswith(b"\x7fELF")
    assert "Compiling entry function 'twice' for 'sm_80'" in cubin.log


def test_a_source_that_does_not_compile(toolchain):
    with pytest.raises(ToolchainError, match=r"twice\.cu does not compile for sm_80: .*FACTOR. is undefined"):
        compile_cubin(HALVES, "twice.cu", "sm_80")


def test_an_architecture_that_the_compiler_does_not_know(toolchain):
    with pytest.raises(ToolchainError, match=r"twice\.cu does not compile for sm_20"):
        compile_cubin(HALVES, "twice.cu", "sm_20", ["-DFACTOR=2.0f"])


def test_a_program_that_fails(toolchain):
    with pytest.raises(ToolchainError, match="nvdisasm of nvidia-cuda-nvdisasm failed: nvdisasm"):
        disassemble(tools.Cubin(b"not a cubin", ""))
