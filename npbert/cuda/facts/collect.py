"""Compiling kernels and putting together what is known about them without running them."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, NamedTuple

from npbert.cuda.facts import instructions as sass
from npbert.cuda.facts.architectures import Architecture
from npbert.cuda.facts.occupancy import occupancy
from npbert.cuda.facts.resources import Resources, parse_compile_log
from npbert.cuda.facts.toolchain import compile_cubin, disassemble
from npbert.cuda.facts.variants import KernelVariant

WORKERS: Final = 2  # NVRTC lets other threads run while it works


class KernelFacts(NamedTuple):
    """What the compiler made of one kernel for one architecture, launched as its launcher does.

    Attributes
    ----------
    kernel, variant : str
        Such as "softmax_attention_forward" and "float16 H=64".
    architecture : str
    threads : int
        Of a block.
    registers, stack_bytes, spill_store_bytes, spill_load_bytes : int
        Of a thread; see `npbert.cuda.facts.resources.Resources`.
    stack_accesses : int
        Instructions that access the stack: a second opinion on the spills.
    shared_bytes : int
        Of a block, static and dynamic.
    blocks : int
        That are resident on a multiprocessor at a time.
    occupancy : float
        The share of the resident warps that there is room for.
    limited_by : str
        What the occupancy ends at.
    loads, wide_loads, stores, wide_stores : int
        Instructions that load from global memory or store there, and those among them that move 16 bytes or
        more a thread.
    matrix_products : int
        Instructions of the tensor cores in the main loop.
    matrix_columns : float or None
        For so many columns of a warp's scores their operations are just enough: a whole number of tiles, if
        none is superfluous. None without such instructions.
    """

    kernel: str
    variant: str
    architecture: str
    threads: int
    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    stack_accesses: int
    shared_bytes: int
    blocks: int
    occupancy: float
    limited_by: str
    loads: int
    wide_loads: int
    stores: int
    wide_stores: int
    matrix_products: int
    matrix_columns: float | None


class _Job(NamedTuple):
    """One run of the compiler: a file, compiled one way, with all kernels that are wanted of it."""

    variants: tuple[KernelVariant, ...]
    architecture: Architecture


def collect(
    variants: Iterable[KernelVariant],
    architectures: Sequence[Architecture],
    progress: Callable[[int, str], None] = lambda done, what: None,
) -> list[KernelFacts]:
    """Compile kernels for architectures, and say what came of it.

    Parameters
    ----------
    variants : iterable of KernelVariant
    architectures : sequence of Architecture
        A kernel is compiled for those that have the instructions it needs.
    progress : callable, optional
        Called with 1 and a description after each run of the compiler.

    Returns
    -------
    list of KernelFacts
        In the order of the variants, then of the architectures.

    Raises
    ------
    ToolchainError
        If a package is missing.
    """
    ordered = list(variants)
    jobs = _jobs(ordered, architectures)
    found: dict[tuple[KernelVariant, str], KernelFacts] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = {pool.submit(_facts, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                for variant, facts in zip(job.variants, future.result(), strict=True):
                    found[variant, job.architecture.name] = facts
                progress(1, f"{job.variants[0].program.name} {job.architecture.name}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    keys = [(variant, architecture.name) for variant in ordered for architecture in architectures]
    return [found[key] for key in keys if key in found]


def count_compilations(variants: Iterable[KernelVariant], architectures: Sequence[Architecture]) -> int:
    """Return how often `collect` runs the compiler."""
    return len(_jobs(variants, architectures))


def _jobs(variants: Iterable[KernelVariant], architectures: Sequence[Architecture]) -> list[_Job]:
    together: dict[object, list[KernelVariant]] = {}
    for variant in variants:
        together.setdefault((variant.program, variant.needs_tensor_cores), []).append(variant)
    return [
        _Job(tuple(group), architecture)
        for group in together.values()
        for architecture in architectures
        if architecture.has_mma_m16n8k16 or not group[0].needs_tensor_cores
    ]


def _facts(job: _Job) -> list[KernelFacts]:
    program = job.variants[0].program
    defines = [f"-D{name}={value}" for name, value in program.defines]
    cubin = compile_cubin(program.source, program.name, job.architecture.name, defines)
    resources = parse_compile_log(cubin.log)
    code = sass.parse_disassembly(disassemble(cubin))
    return [
        _facts_of_kernel(variant, job.architecture, resources[variant.kernel], code[variant.kernel])
        for variant in job.variants
    ]


def _facts_of_kernel(
    variant: KernelVariant,
    architecture: Architecture,
    resources: Resources,
    code: Sequence[sass.Instruction],
) -> KernelFacts:
    shared_bytes = resources.shared_bytes + variant.dynamic_shared_bytes
    fill = occupancy(architecture, variant.threads, resources.registers, shared_bytes)
    loads, stores = sass.global_loads(code), sass.global_stores(code)
    loop = sass.matrix_loop(code)
    return KernelFacts(
        kernel=variant.kernel,
        variant=variant.label,
        architecture=architecture.name,
        threads=variant.threads,
        registers=resources.registers,
        stack_bytes=resources.stack_bytes,
        spill_store_bytes=resources.spill_store_bytes,
        spill_load_bytes=resources.spill_load_bytes,
        stack_accesses=sass.stack_accesses(code),
        shared_bytes=shared_bytes,
        blocks=fill.blocks,
        occupancy=fill.fraction,
        limited_by=fill.limited_by,
        loads=loads.instructions,
        wide_loads=loads.wide,
        stores=stores.instructions,
        wide_stores=stores.wide,
        matrix_products=sass.matrix_products(loop),
        matrix_columns=(
            sass.matrix_flops(loop) / variant.column_flops if variant.column_flops is not None else None
        ),
    )
