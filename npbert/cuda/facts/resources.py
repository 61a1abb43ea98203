"""What a compiled kernel needs: registers, stack, shared memory, and what did not fit into registers."""

import re
from typing import Final, NamedTuple


class Resources(NamedTuple):
    """What a kernel needs, in the words of the assembler.

    Attributes
    ----------
    registers : int
        Of a thread.
    stack_bytes : int
        Of a thread: arrays that cannot live in registers, and spills.
    spill_store_bytes, spill_load_bytes : int
        What moves between registers and the stack for want of registers.
    shared_bytes : int
        Of a block; what is declared in the source, without what a launch adds.
    """

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int


# ptxas info    : Compiling entry function 'layernorm_forward' for 'sm_80'
# ptxas info    : Function properties for layernorm_forward
# ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
# ptxas info    : Used 26 registers, used 1 barriers, 128 bytes smem, 372 bytes cmem[0]
ENTRY: Final = re.compile(r"Compiling entry function '(?P<name>\w+)'")
NUMBERS: Final = {
    "stack_bytes": re.compile(r"(\d+) bytes stack frame"),
    "spill_store_bytes": re.compile(r"(\d+) bytes spill stores"),
    "spill_load_bytes": re.compile(r"(\d+) bytes spill loads"),
    "registers": re.compile(r"Used (\d+) registers"),
    "shared_bytes": re.compile(r"(\d+) bytes smem"),
}
NOT_ALWAYS_SAID: Final = {"shared_bytes": 0}

#  Function layernorm_forward:
#   REG:26 STACK:0 SHARED:128 LOCAL:0 CONSTANT[0]:372 TEXTURE:0 SURFACE:0 SAMPLER:0
USAGE: Final = re.compile(r"Function (?P<name>\w+):\s+REG:(?P<registers>\d+) STACK:(?P<stack>\d+)")


def parse_compile_log(log: str) -> dict[str, Resources]:
    """Return the resources of each kernel that the assembler tells of.

    Parameters
    ----------
    log : str
        What ptxas prints with -v.

    Returns
    -------
    dict
        By the kernel's name.

    Raises
    ------
    ValueError
        If a figure is missing.
    """
    parts = ENTRY.split(log)[1:]  # name, what is said about it, name, ...
    return {name: _resources(name, text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def parse_resource_usage(text: str) -> dict[str, tuple[int, int]]:
    """Return the registers and the bytes of stack of each kernel, as cuobjdump reads them in the cubin.

    Examples
    --------
    >>> parse_resource_usage(" Function gelu_forward:\\n  REG:26 STACK:0 SHARED:128 LOCAL:0")
    {'gelu_forward': (26, 0)}
    """
    return {found["name"]: (int(found["registers"]), int(found["stack"])) for found in USAGE.finditer(text)}


def _resources(name: str, text: str) -> Resources:
    numbers = dict(NOT_ALWAYS_SAID)
    for field, pattern in NUMBERS.items():
        found = pattern.findall(text)
        if found:
            # More than one where a function was not inlined: it has a stack, and spills, of its own.
            numbers[field] = sum(map(int, found))
        elif field not in numbers:
            raise ValueError(f"the assembler's log does not say {field} of {name}: {text.strip()!r}")
    return Resources(**numbers)
