"""How much of a multiprocessor the blocks of a kernel fill."""

from typing import NamedTuple

from npbert.cuda.facts.architectures import (
    MAX_REGISTERS_PER_THREAD,
    MAX_THREADS_PER_BLOCK,
    PARTITIONS,
    REGISTER_GRANULARITY,
    REGISTERS,
    WARP_SIZE,
    Architecture,
)


class Occupancy(NamedTuple):
    """How many blocks of a kernel are resident on one multiprocessor.

    Attributes
    ----------
    blocks, warps : int
    fraction : float
        Of the warps that there is room for.
    limited_by : str
        What runs out first: "warps", "blocks", "registers" or "shared memory".
    """

    blocks: int
    warps: int
    fraction: float
    limited_by: str


def occupancy(architecture: Architecture, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """Return how many blocks are resident at a time.

    Parameters
    ----------
    architecture : Architecture
    threads : int
        Of a block.
    registers : int
        Of a thread.
    shared_bytes : int
        Of a block, static and dynamic.

    Returns
    -------
    Occupancy
        With no blocks if not even one fits.

    References
    ----------
    The calculation of NVIDIA's cuda_occupancy.h, for what these kernels need of it.

    Examples
    --------
    >>> from npbert.cuda.facts.architectures import ARCHITECTURES
    >>> occupancy(ARCHITECTURES["sm_80"], threads=256, registers=64, shared_bytes=0)
    Occupancy(blocks=4, warps=32, fraction=0.5, limited_by='registers')
    """
    warps_per_block = _divide_up(threads, WARP_SIZE)
    limits = {
        "warps": architecture.max_warps // warps_per_block if threads <= MAX_THREADS_PER_BLOCK else 0,
        "blocks": architecture.max_blocks,
        "registers": _blocks_by_registers(warps_per_block, registers),
        "shared memory": _blocks_by_shared_memory(architecture, shared_bytes),
    }
    limited_by = min(limits, key=limits.__getitem__)
    blocks = limits[limited_by]
    warps = blocks * warps_per_block
    return Occupancy(blocks, warps, warps / architecture.max_warps, limited_by)


def _blocks_by_registers(warps_per_block: int, registers: int) -> int:
    """A warp's registers come from one of the four parts of the multiprocessor's."""
    if registers == 0:
        return REGISTERS
    per_warp = _round_up(registers * WARP_SIZE, REGISTER_GRANULARITY)
    # Whether a block can be launched at all is checked as if its warps filled all parts evenly.
    can_launch = per_warp * _round_up(warps_per_block, PARTITIONS) <= REGISTERS
    if registers > MAX_REGISTERS_PER_THREAD or not can_launch:
        return 0
    warps_per_part = REGISTERS // PARTITIONS // per_warp
    return warps_per_part * PARTITIONS // warps_per_block


def _blocks_by_shared_memory(architecture: Architecture, shared_bytes: int) -> int:
    if shared_bytes > architecture.max_block_shared_bytes:
        return 0
    per_block = _round_up(shared_bytes + architecture.reserved_shared_bytes, architecture.shared_granularity)
    return architecture.shared_bytes // per_block if per_block else architecture.max_blocks


def _divide_up(x: int, y: int) -> int:
    return -(-x // y)


def _round_up(x: int, y: int) -> int:
    return _divide_up(x, y) * y
