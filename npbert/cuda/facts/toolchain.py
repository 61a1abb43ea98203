"""NVIDIA's compiler and disassembler, as the packages on PyPI bring them: neither needs a GPU.

Each of the packages installs one library, program or folder of headers; `importlib.metadata` knows where.
"""

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, NamedTuple

from npbert.errors import BackendError

COMPILER: Final = "nvidia-cuda-nvrtc"
HEADERS: Final = "nvidia-cuda-runtime"
DISASSEMBLER: Final = "nvidia-cuda-nvdisasm"
OBJECT_DUMPER: Final = "nvidia-cuda-cuobjdump"
HOW_TO_INSTALL: Final = 'pip install "npbert[cuda-static]"'
# From 14 on there may be no sm_75.
MAJOR_VERSION: Final = 13

# As CuPy compiles a RawKernel: subnormal floats are flushed to zero, a * b + c becomes one operation, and
# nothing else is relaxed. -v has the assembler say what each kernel needs.
OPTIONS: Final = ("-std=c++17", "-ftz=true", "--ptxas-options=-v")


class ToolchainError(BackendError):
    """A package that is missing or of the wrong version, or a source that does not compile."""


class Cubin(NamedTuple):
    """Compiled kernels.

    Attributes
    ----------
    image : bytes
        The file: machine code for one architecture.
    log : str
        What the assembler said.
    """

    image: bytes
    log: str


def compile_cubin(source: str, name: str, architecture: str, defines: Sequence[str] = ()) -> Cubin:
    """Compile CUDA source for a GPU that need not be there.

    Parameters
    ----------
    source : str
    name : str
        What error messages call it, such as "layernorm.cu".
    architecture : str
        Such as "sm_80".
    defines : sequence of str
        Macros, such as "-DREAL=float".

    Returns
    -------
    Cubin

    Raises
    ------
    ToolchainError
        If a package is missing, or the source does not compile.
    """
    nvrtc = _nvrtc()
    headers = installed_file(HEADERS, "cuda_fp16.h").parent
    options = [*OPTIONS, f"-arch={architecture}", f"-I{headers}", *defines]
    program = ctypes.c_void_p()
    _succeed(nvrtc, nvrtc.nvrtcCreateProgram(_ref(program), source.encode(), name.encode(), 0, None, None))
    try:
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        code = nvrtc.nvrtcCompileProgram(program, len(options), array)
        log = _output(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if code != 0:
            raise ToolchainError(f"{name} does not compile for {architecture}: {log.strip()}")
        return Cubin(_output(nvrtc, program, "CUBIN"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(_ref(program))


def disassemble(cubin: Cubin) -> str:
    """Return the instructions of all kernels in a cubin, as the JSON that nvdisasm prints."""
    return _run(DISASSEMBLER, "nvdisasm", ["-json"], cubin)


def resource_usage(cubin: Cubin) -> str:
    """Return what cuobjdump reads about resources in a cubin: a second opinion on the assembler's log."""
    return _run(OBJECT_DUMPER, "cuobjdump", ["-res-usage"], cubin)


def require_toolchain() -> str:
    """Return the compiler's version, once all that is needed was found.

    Raises
    ------
    ToolchainError
        Naming the first package that is missing, or of the wrong major version.
    """
    for package, pattern in ((HEADERS, "cuda_fp16.h"), (DISASSEMBLER, "nvdisasm")):
        installed_file(package, pattern)
    return _compiler_version()


def _compiler_version() -> str:
    try:
        version = distribution(COMPILER).version
    except PackageNotFoundError:
        raise ToolchainError(f"{COMPILER} is not installed; {HOW_TO_INSTALL}") from None
    if int(version.partition(".")[0]) != MAJOR_VERSION:
        raise ToolchainError(
            f"{COMPILER} {version} is installed, version {MAJOR_VERSION} is needed; {HOW_TO_INSTALL}"
        )
    return version


@cache
def installed_file(package: str, pattern: str) -> Path:
    """Return the path of the file with such a name that an installed package brought."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ToolchainError(f"{package} is not installed; {HOW_TO_INSTALL}") from None
    for file in files:
        if fnmatchcase(file.name, pattern):
            return Path(str(file.locate()))
    raise ToolchainError(f"the installed {package} has no file {pattern} for this system")


@cache
def _nvrtc() -> ctypes.CDLL:
    _compiler_version()
    path = installed_file(COMPILER, "libnvrtc.so.*")
    try:
        library = ctypes.CDLL(str(path))  # which lets other threads run during a call
    except OSError as error:
        raise ToolchainError(f"{path.name} of {COMPILER} cannot be loaded: {error}") from None
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _succeed(nvrtc: ctypes.CDLL, code: int) -> None:
    if code != 0:
        raise ToolchainError(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")


def _output(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """Return one of the results of a compilation: "ProgramLog" or "CUBIN"."""
    size = ctypes.c_size_t()
    _succeed(nvrtc, nvrtc[f"nvrtcGet{what}Size"](program, _ref(size)))
    content = ctypes.create_string_buffer(size.value)
    _succeed(nvrtc, nvrtc[f"nvrtcGet{what}"](program, content))
    return content.raw


def _ref(value: ctypes.c_void_p | ctypes.c_size_t) -> object:
    return ctypes.byref(value)


def _run(package: str, program: str, options: Sequence[str], cubin: Cubin) -> str:
    path = installed_file(package, program)
    with tempfile.TemporaryDirectory(prefix="npbert-") as directory:
        file = Path(directory) / "kernel.cubin"
        file.write_bytes(cubin.image)
        done = subprocess.run([path, *options, file], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(f"{program} of {package} failed: {done.stderr.strip()}")
    return done.stdout
