"""What the machine code of a kernel says: how wide its loads and stores are, what its loops multiply."""

import json
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

BYTES_OF_INSTRUCTION: Final = 16
MATRIX_OPCODE: Final = "HMMA"
FLOPS_OF_SHAPE: Final = {"1688": 2 * 16 * 8 * 8, "16816": 2 * 16 * 8 * 16}

# LDG.E.128.CONSTANT: a load from global memory; LDGSTS: the same, straight into shared memory (cp.async).
GLOBAL_LOADS: Final = ("LDG", "LDGSTS")
GLOBAL_STORES: Final = ("STG",)
LOCAL: Final = ("LDL", "STL")  # the stack
WIDE: Final = 16  # bytes


class Instruction(NamedTuple):
    """One instruction of a kernel.

    Attributes
    ----------
    offset : int
        In bytes, from the start of the kernel.
    opcode : str
        With all its suffixes: "LDG.E.128".
    operands : str
    """

    offset: int
    opcode: str
    operands: str


class Width(NamedTuple):
    """How many instructions of a kind there are, and how many of them move 16 bytes a thread or more."""

    instructions: int
    wide: int


class Loop(NamedTuple):
    """A piece of code that ends with a jump back to its start; offsets in bytes, both within it."""

    start: int
    end: int


def parse_disassembly(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each kernel.

    Parameters
    ----------
    text : str
        What nvdisasm prints with -json.

    Returns
    -------
    dict
        By the kernel's name.
    """
    _, functions = json.loads(text)
    return {function["function-name"]: _instructions(function) for function in functions}


def global_loads(instructions: Sequence[Instruction]) -> Width:
    """Return how wide the loads from global memory are."""
    return _width(instructions, GLOBAL_LOADS)


def global_stores(instructions: Sequence[Instruction]) -> Width:
    """Return how wide the stores to global memory are."""
    return _width(instructions, GLOBAL_STORES)


def stack_accesses(instructions: Sequence[Instruction]) -> int:
    """Return the number of instructions that load from a thread's stack or store there."""
    return len(_of_kind(instructions, LOCAL))


def matrix_products(instructions: Sequence[Instruction]) -> int:
    """Return the number of instructions of the tensor cores."""
    return len(_of_kind(instructions, (MATRIX_OPCODE,)))


def matrix_flops(instructions: Sequence[Instruction]) -> int:
    """Return the floating-point operations of the tensor cores, if a warp runs each instruction once.

    Examples
    --------
    >>> matrix_flops([Instruction(0, "HMMA.16816.F32", "R4,R8,R2,R4")])
    4096
    """
    return sum(
        FLOPS_OF_SHAPE[instruction.opcode.split(".")[1]]
        for instruction in _of_kind(instructions, (MATRIX_OPCODE,))
    )


def loops(instructions: Sequence[Instruction]) -> list[Loop]:
    """Return the loops: every jump back, but for the endless one that fills up the end of a kernel."""
    found = []
    for instruction in _of_kind(instructions, ("BRA",)):
        target = re.search(r"(0x[0-9a-f]+)$", instruction.operands)
        if target is not None and int(target[1], 16) < instruction.offset:
            found.append(Loop(int(target[1], 16), instruction.offset))
    return found


def matrix_loop(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Return the instructions of the shortest loop that has all of the products in loops; else none.

    Where the compiler has unrolled everything inside, that is the body which handles one tile.
    """
    inside = [
        [instruction for instruction in instructions if loop.start <= instruction.offset <= loop.end]
        for loop in loops(instructions)
    ]
    most = max((matrix_products(body) for body in inside), default=0)
    if most == 0:
        return []
    return min((body for body in inside if matrix_products(body) == most), key=len)


def _instructions(function: dict[str, object]) -> list[Instruction]:
    listed = function["sass-instructions"]
    assert isinstance(listed, list)
    return [
        Instruction(number * BYTES_OF_INSTRUCTION, one["opcode"], one.get("operands", ""))
        for number, one in enumerate(listed)
    ]


def _of_kind(instructions: Sequence[Instruction], kinds: Sequence[str]) -> list[Instruction]:
    return [instruction for instruction in instructions if instruction.opcode.split(".")[0] in kinds]


def _width(instructions: Sequence[Instruction], kinds: Sequence[str]) -> Width:
    found = _of_kind(instructions, kinds)
    return Width(len(found), sum(bytes_a_thread(instruction.opcode) >= WIDE for instruction in found))


def bytes_a_thread(opcode: str) -> int:
    """Return how many bytes a thread's load or store moves.

    Examples
    --------
    >>> [bytes_a_thread(opcode) for opcode in ("LDG.E", "LDG.E.U16.CONSTANT", "STG.E.128")]
    [4, 2, 16]
    """
    for suffix in opcode.split(".")[1:]:
        if re.fullmatch(r"64|128|256", suffix):
            return int(suffix) // 8
        if re.fullmatch(r"[US](8|16)", suffix):
            return int(suffix[1:]) // 8
    return 4
