"""From CUDA C++ to what a C++ compiler takes: the kernel's own text below a header of macros.

Only two things are rewritten, because no macro can: declarations of shared memory, and the beginning of each
kernel, which gets an entry that a launch calls. Each shared array becomes a reference to memory that the
emulator owns, of exactly the array's size, so that a detector sees where it ends.
"""

import re
from typing import NamedTuple

from npbert.cuda.source import KERNEL, blank_comments, kernel_signatures, place_of

_ALIGNMENT = r"(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?"
_TYPE = r"((?:(?:unsigned|signed|long|const|volatile)\s+)*[\w:]+(?:<[^<>;]*>)?)"
_DYNAMIC = re.compile(
    rf"\bextern\s+{_ALIGNMENT}__shared__\s+{_ALIGNMENT}{_TYPE}\s+{_ALIGNMENT}(\w+)\s*\[\s*\]\s*;"
)
_STATIC = re.compile(
    rf"\b(?:static\s+)?{_ALIGNMENT}__shared__\s+{_ALIGNMENT}{_TYPE}\s+{_ALIGNMENT}(\w+)\s*((?:\[[^\]]*\w[^\]]*\]\s*)*);"
)
_ANY = re.compile(r"\b(?:(?:static|extern)\s+)?__shared__")


class _Edit(NamedTuple):
    start: int
    stop: int
    text: str


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
        The source's lines are lines of it.

    Raises
    ------
    ValueError
        If the source has no kernel, or declares shared memory in a form that is not understood.

    Examples
    --------
    >>> text = 'extern "C" __global__ void f(int *x) { __shared__ int sum; }'
    >>> print(translate(text, "f.cu"))  # doctest: +NORMALIZE_WHITESPACE
    #include "emulator.h"
    #line 1 "f.cu"
    extern "C" void emulator_kernel_f(int *x); EMULATOR_ENTRY(f)
    extern "C" __global__ void emulator_kernel_f(int *x)
    { struct emulator_shared_0 { typedef int type; };
      auto &sum = emulator_shared_array<emulator_shared_0>(); }
    """
    if not kernel_signatures(source):
        raise ValueError(f'{name}: no kernel found; a kernel begins with extern "C" __global__ void')
    code = blank_comments(source)
    edits = [*_entries(code), *_shared_declarations(code)]
    text = source
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.stop :]
    _check_nothing_left(source, edits, name)
    return f'#include "emulator.h"\n#line 1 "{name}"\n{text}\n'


def _entries(code: str) -> list[_Edit]:
    """Put each kernel's entry before it, where the preprocessor leaves out both or none.

    The kernel gets another name: its own may be that of a function of the C library, ``read`` or ``index``.
    """
    edits = []
    for match in KERNEL.finditer(code):
        name, parameters = match[1], _in_one_line(match[2])
        declaration = f'extern "C" void emulator_kernel_{name}({parameters}); EMULATOR_ENTRY({name}) '
        edits.append(_Edit(match.start(), match.start(), declaration))
        edits.append(_Edit(*match.span(1), f"emulator_kernel_{name}"))
    return edits


def _shared_declarations(code: str) -> list[_Edit]:
    edits = []
    for match in _DYNAMIC.finditer(code):
        ctype, variable = match.groups()
        text = f"{ctype} *const {variable} = static_cast<{ctype} *>(emulator_dynamic_shared());"
        edits.append(_edit(match, text))
    for number, match in enumerate(_STATIC.finditer(code)):
        ctype, variable, sizes = match.groups()
        array = f"emulator_shared_{number}"
        text = (
            f"struct {array} {{ typedef {ctype} type{_in_one_line(sizes)}; }}; "
            f"auto &{variable} = emulator_shared_array<{array}>();"
        )
        edits.append(_edit(match, text))
    return edits


def _edit(match: re.Match[str], text: str) -> _Edit:
    return _Edit(match.start(), match.end(), text + "\n" * match[0].count("\n"))


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _check_nothing_left(source: str, edits: list[_Edit], name: str) -> None:
    code = blank_comments(source, strings=True)
    for found in _ANY.finditer(code):
        place = place_of(source, found.start(), name)
        text = source[found.start() :].split("\n", 1)[0].strip()
        if not any(edit.start <= found.start() < edit.stop for edit in edits):
            raise ValueError(
                f"{place}: this declaration of shared memory is not understood: {text!r}; "
                "write one array a statement, as __shared__ TYPE NAME[SIZE];"
            )
        before = code[: found.start()]
        if before.count("{") <= before.count("}"):
            raise ValueError(
                f"{place}: shared memory outside a function is not understood: {text!r}; "
                "declare it in the kernel that uses it"
            )
