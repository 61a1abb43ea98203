"""Which kernels there are to compile: each as its launcher compiles and launches it."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from npbert.cuda.emulator import Launch, Program
from npbert.cuda.facts.architectures import WARP_SIZE
from npbert.cuda.facts.problems import Problem
from npbert.cuda.source import kernel_signatures

DTYPE_OF: Final = {"double": "float64", "float": "float32", "__half": "float16"}  # of -DREAL

# Kernels that multiply on tensor cores: how many products of matrices each makes of a tile of scores.
MATRIX_PRODUCTS: Final = {
    "softmax_attention_mma_forward": 2,
    "softmax_attention_mma_backward_queries": 3,
    "softmax_attention_mma_backward_keys": 4,
}


class KernelVariant(NamedTuple):
    """A kernel, compiled and launched one way.

    Attributes
    ----------
    kernel : str
    label : str
        What it is compiled for: "float16", "float16 H=64".
    program : Program
        Source and macros.
    threads : int
        Of a block.
    dynamic_shared_bytes : int
        Of a block.
    column_flops : int or None
        What a warp needs of the tensor cores for one column of its scores; None for a kernel that does not
        use them.
    """

    kernel: str
    label: str
    program: Program
    threads: int
    dynamic_shared_bytes: int
    column_flops: int | None

    @property
    def needs_tensor_cores(self) -> bool:
        """Whether it is compiled only for architectures that have mma.m16n8k16."""
        return self.column_flops is not None


def kernel_variants(problems: Iterable[Problem]) -> list[KernelVariant]:
    """Return the kernels that some problems launch, each variant once, in order."""
    found = (_variant(launch) for problem in problems for launch in problem.launches)
    return list(dict.fromkeys(found))


def label(program: Program) -> str:
    """Return what a program was compiled for.

    Examples
    --------
    >>> label(Program("", (("REAL", "__half"), ("ACC", "float"), ("HEAD_WIDTH", "64"))))
    'float16 H=64'
    """
    defines = dict(program.defines)
    head_width = f" H={defines['HEAD_WIDTH']}" if "HEAD_WIDTH" in defines else ""
    return DTYPE_OF[defines["REAL"]] + head_width


def _variant(launch: Launch) -> KernelVariant:
    x, y, z = launch.block
    return KernelVariant(
        kernel=launch.kernel,
        label=label(launch.program),
        program=launch.program,
        threads=x * y * z,
        dynamic_shared_bytes=launch.shared_bytes,
        column_flops=_column_flops(launch),
    )


def matrix_flops(launch: Launch) -> int | None:
    """Return what a launch needs of the tensor cores; None if its kernel does not use them.

    Each of its products takes 2 H operations for each pair of a query and a key.
    """
    if launch.kernel not in MATRIX_PRODUCTS:
        return None
    arguments = _arguments(launch)
    return MATRIX_PRODUCTS[launch.kernel] * 2 * int(arguments["q"].size) * int(arguments["max_keys"])


def _column_flops(launch: Launch) -> int | None:
    flops = matrix_flops(launch)
    if flops is None:
        return None
    warps = launch.grid[0] * launch.block[0] // WARP_SIZE
    return flops // (warps * int(_arguments(launch)["max_keys"]))


def _arguments(launch: Launch) -> dict[str, Any]:
    names = [parameter.name for parameter in kernel_signatures(launch.program.source)[launch.kernel]]
    return dict(zip(names, launch.values, strict=True))
