"""What kernels ask of memory, and of the tensor cores, while they run on the emulator."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from npbert.cuda.emulator import Launch, Trace, trace
from npbert.cuda.emulator.tracing import FIRST_SHARED
from npbert.cuda.facts.problems import DTYPES, SMALL, Problem, Size, problems
from npbert.cuda.facts.traces import (
    SECTOR_BYTES,
    Requests,
    bank_turns,
    by_instruction,
    sectors,
    total,
)
from npbert.cuda.facts.variants import label, matrix_flops

TRACED_HEAD_WIDTHS: Final = (64,)
WORTH_NAMING: Final = 1.05  # times the least
FLOPS_OF_PRODUCT: Final = 2 * 16 * 8 * 16  # mma.m16n8k16


class KernelTraffic(NamedTuple):
    """What one kernel asked of memory.

    Attributes
    ----------
    kernel, variant : str
    loads, stores : Requests
        Of global memory, in sectors.
    shared : Requests
        Loads and stores of shared memory, in turns of its banks.
    worst_global, worst_shared : str
        The place in the source that took most over the least, such as "layernorm.cu:87"; empty if none did.
    matrix_excess : float or None
        What the tensor cores computed over what the formulas need; None for a kernel that does not use them.
    """

    kernel: str
    variant: str
    loads: Requests
    stores: Requests
    shared: Requests
    worst_global: str
    worst_shared: str
    matrix_excess: float | None

    @property
    def global_bytes(self) -> int:
        """What warps asked of global memory, in whole sectors."""
        return SECTOR_BYTES * (self.loads.units + self.stores.units)


class ProblemTraffic(NamedTuple):
    """What the kernels of one op asked of memory."""

    problem: Problem
    kernels: tuple[KernelTraffic, ...]

    @property
    def global_bytes(self) -> int:
        """What all of them asked of global memory, in whole sectors: no cache taken into account."""
        return sum(kernel.global_bytes for kernel in self.kernels)


def collect_traffic(
    kernels: Collection[str],
    progress: Callable[[int, str], None] = lambda done, what: None,
    size: Size = SMALL,
    head_widths: Sequence[int] = TRACED_HEAD_WIDTHS,
    dtypes: Sequence[str] = DTYPES,
) -> Iterator[ProblemTraffic]:
    """Run kernels on the emulator, and look at their addresses.

    Parameters
    ----------
    kernels : collection of str
        Names; others are not run.
    progress : callable, optional
        Called with 1 and a description after each launch.
    size : Size
    head_widths : sequence of int
        Of attention.
    dtypes : sequence of str

    Yields
    ------
    ProblemTraffic
        For each op that launches one of them.

    Raises
    ------
    EmulatorError
        If there is no C++ compiler.
    """
    found: list[KernelTraffic] = []

    def look(launch: Launch) -> None:
        if launch.kernel in kernels:
            found.append(_traffic(launch))
            progress(1, f"{launch.kernel} {label(launch.program)}")

    for problem in problems(size, look, head_widths, dtypes):
        if found:
            yield ProblemTraffic(problem, _by_kernel(found))
            found.clear()


def count_traces(kernels: Collection[str], size: Size = SMALL) -> int:
    """Return how many launches `collect_traffic` looks at."""
    launches = [launch for problem in problems(size, None, TRACED_HEAD_WIDTHS) for launch in problem.launches]
    return sum(launch.kernel in kernels for launch in launches)


def _by_kernel(found: Sequence[KernelTraffic]) -> tuple[KernelTraffic, ...]:
    """Add up the launches of the same kernel."""
    together: dict[str, KernelTraffic] = {}
    for one in found:
        before = together.get(one.kernel)
        together[one.kernel] = one if before is None else _sum(before, one)
    return tuple(together.values())


def _sum(one: KernelTraffic, other: KernelTraffic) -> KernelTraffic:
    return one._replace(
        loads=total([one.loads, other.loads]),
        stores=total([one.stores, other.stores]),
        shared=total([one.shared, other.shared]),
        worst_global=one.worst_global or other.worst_global,
        worst_shared=one.worst_shared or other.worst_shared,
    )


def _traffic(launch: Launch) -> KernelTraffic:
    traced = trace(launch)
    accesses = traced.accesses
    needed = matrix_flops(launch)
    is_shared = accesses["range"] >= FIRST_SHARED
    is_write = accesses["is_write"] != 0
    loads = by_instruction(accesses[~is_shared & ~is_write], sectors)
    stores = by_instruction(accesses[~is_shared & is_write], sectors)
    shared = by_instruction(accesses[is_shared], bank_turns)
    return KernelTraffic(
        launch.kernel,
        label(launch.program),
        total(list(loads.values())),
        total(list(stores.values())),
        total(list(shared.values())),
        _worst(traced, loads | stores),
        _worst(traced, shared),
        FLOPS_OF_PRODUCT * traced.matrix_products / needed if needed is not None else None,
    )


def _worst(traced: Trace, requests: dict[int, Requests]) -> str:
    if not requests:
        return ""
    worst = max(requests, key=lambda number: requests[number].units - requests[number].least_units)
    return traced.places([worst])[worst] if requests[worst].excess > WORTH_NAMING else ""
