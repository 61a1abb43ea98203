"""What one multiprocessor of each GPU architecture has room for."""

from typing import Final, NamedTuple

KIB: Final = 1024
WARP_SIZE: Final = 32
MAX_THREADS_PER_BLOCK: Final = 1024
MAX_REGISTERS_PER_THREAD: Final = 255
REGISTERS: Final = 64 * KIB  # of 32 bits, of one multiprocessor and of one block
PARTITIONS: Final = 4  # of a multiprocessor; each has its own quarter of the registers
REGISTER_GRANULARITY: Final = 256  # registers are handed out to warps in pieces of this size


class Architecture(NamedTuple):
    """The limits of one multiprocessor.

    Attributes
    ----------
    name : str
        As compilers call it: "sm_80".
    max_warps, max_blocks : int
        How many may be resident at a time.
    shared_bytes : int
        Of shared memory, at the largest division of the memory that it shares with the L1 cache.
    max_block_shared_bytes : int
        What one block may ask for (above 48 KiB only as dynamic shared memory).
    reserved_shared_bytes : int
        What the system takes of it for each block.
    shared_granularity : int
        Shared memory is handed out in pieces of this size.
    has_mma_m16n8k16 : bool
        Whether the tensor cores multiply 16x16 by 16x8 matrices of float16 in one instruction.
    """

    name: str
    max_warps: int
    max_blocks: int
    shared_bytes: int
    max_block_shared_bytes: int
    reserved_shared_bytes: int
    shared_granularity: int
    has_mma_m16n8k16: bool


def _ampere_or_later(name: str, max_warps: int, max_blocks: int, shared_kib: int) -> Architecture:
    return Architecture(
        name,
        max_warps,
        max_blocks,
        shared_bytes=shared_kib * KIB,
        max_block_shared_bytes=(shared_kib - 1) * KIB,
        reserved_shared_bytes=1 * KIB,
        shared_granularity=128,
        has_mma_m16n8k16=True,
    )


# CUDA programming guide, "Compute capabilities", tables of technical specifications; the granularities are
# those of cuda_occupancy.h, with which the tests compare `npbert.cuda.facts.occupancy`.
ARCHITECTURES: Final = {
    architecture.name: architecture
    for architecture in (
        Architecture("sm_75", 32, 16, 64 * KIB, 64 * KIB, 0, 256, has_mma_m16n8k16=False),
        _ampere_or_later("sm_80", max_warps=64, max_blocks=32, shared_kib=164),
        _ampere_or_later("sm_86", max_warps=48, max_blocks=16, shared_kib=100),
        _ampere_or_later("sm_89", max_warps=48, max_blocks=24, shared_kib=100),
        _ampere_or_later("sm_90", max_warps=64, max_blocks=32, shared_kib=228),
        _ampere_or_later("sm_100", max_warps=64, max_blocks=32, shared_kib=228),
        _ampere_or_later("sm_120", max_warps=48, max_blocks=24, shared_kib=100),
    )
}
