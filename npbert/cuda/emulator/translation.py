"""From CUDA C++ to what a C++ compiler takes: the kernel's own text below a header of macros.

Only declarations of shared memory are rewritten, because no macro can: each shared array becomes a reference
to memory that the emulator owns, of exactly the array's size, so that a detector sees where it ends.
"""

import re

from npbert.cuda.source import COMMENT, kernel_signatures

_ALIGNMENT = r"(?:__align__\s*\([^)]*\)\s*)?"
_TYPE = r"((?:unsigned\s+|signed\s+|long\s+|const\s+)*\w+)"
_DYNAMIC = re.compile(rf"extern\s+__shared__\s+{_ALIGNMENT}{_TYPE}\s+{_ALIGNMENT}(\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(
    rf"(?<!extern )__shared__\s+{_ALIGNMENT}{_TYPE}\s+{_ALIGNMENT}(\w+)\s*((?:\[[^\]]*\]\s*)*);"
)
_ANY = re.compile(r"__shared__")


def translate(source: str, name: str) -> str:
    """Return a C++ translation unit that contains a CUDA source and an entry for each of its kernels.

    Parameters
    ----------
    source : str
        CUDA C++, with its own includes in place.
    name : str
        What messages call it.

    Returns
    -------
    text : str

    Raises
    ------
    ValueError
        If the source has no kernel, or declares shared memory in a form that is not understood.
    """
    kernels = kernel_signatures(source)
    if not kernels:
        raise ValueError(f'{name}: no kernel found; a kernel begins with extern "C" __global__ void')
    text = _DYNAMIC.sub(_dynamic_pointer, source)
    count = 0

    def static_reference(match: re.Match[str]) -> str:
        nonlocal count
        ctype, variable, dimensions = match.groups()
        count += 1
        array = f"{ctype}{''.join(dimensions.split())}"
        return f"auto &{variable} = emulator_shared_array<{array}>({count - 1});"

    text = _STATIC.sub(static_reference, text)
    left = _ANY.search(COMMENT.sub(lambda match: " " * len(match[0]), text))
    if left is not None:
        line = text[left.start() :].split("\n", 1)[0]
        raise ValueError(
            f"{name}: this declaration of shared memory is not understood: {line.strip()!r}; "
            "write one array a statement, as __shared__ TYPE NAME[SIZE];"
        )
    entries = "\n".join(f"EMULATOR_ENTRY({kernel})" for kernel in kernels)
    return f'#include "emulator.h"\n#line 1 "{name}"\n{text}\n#line 1 "entries"\n{entries}\n'


def _dynamic_pointer(match: re.Match[str]) -> str:
    ctype, variable = match.groups()
    return f"{ctype} *const {variable} = static_cast<{ctype} *>(emulator_dynamic_shared());"
