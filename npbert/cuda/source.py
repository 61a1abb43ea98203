"""The text of a kernel, as a compiler gets it, and what can be read off it: its kernels and their arguments.

A kernel is one source string. ``#include "x.cuh"`` of a file beside it is replaced by that file's text: with
a single string there is no include path to get wrong, and no cache that misses a change of an included file.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

INCLUDE = re.compile(r'^[ \t]*#include[ \t]+"([^"]+)"[ \t]*$', re.MULTILINE)
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class Parameter(NamedTuple):
    """One parameter of a kernel."""

    name: str
    ctype: str  # "float", "unsigned char", ...; REAL and ACC are not resolved
    is_pointer: bool
    is_const: bool


def kernel_folder() -> Path:
    """Return the folder of the ``.cu`` files: inside the installed package, or at the top of a checkout.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "kernels", package.parent / "kernels"):
        if any(folder.glob("*.cu")):
            return folder
    raise FileNotFoundError(f"no kernels in {package / 'kernels'} nor in {package.parent / 'kernels'}")


@cache
def kernel_source(file: str) -> str:
    """Return the text of ``kernels/<file>`` with the files that it includes in place.

    ``#line`` directives keep the names and line numbers that messages mention.

    Parameters
    ----------
    file : str
        Like ``"layernorm.cu"``.

    Returns
    -------
    text : str

    Raises
    ------
    FileNotFoundError
        If the file, or one that it includes, is not there.
    """
    return inline_includes((kernel_folder() / file).read_text(encoding="utf-8"), file, kernel_folder())


def inline_includes(text: str, name: str, folder: Path) -> str:
    """Return ``text`` with each ``#include "x"`` of a file in ``folder`` replaced by that file, once.

    Parameters
    ----------
    text : str
    name : str
        What messages call the text.
    folder : path
        Where included files are.

    Returns
    -------
    text : str
    """
    return f'#line 1 "{name}"\n' + _inline(text, name, folder, seen={name})


def _inline(text: str, name: str, folder: Path, seen: set[str]) -> str:
    parts = []
    position = 0
    for include in INCLUDE.finditer(text):
        included = include[1]
        line_after = text.count("\n", 0, include.end()) + 2
        parts.append(text[position : include.start()])
        if included not in seen:
            seen.add(included)
            content = (folder / included).read_text(encoding="utf-8")
            parts.append(f'#line 1 "{included}"\n{_inline(content, included, folder, seen)}\n')
        parts.append(f'#line {line_after} "{name}"')
        position = include.end()
    parts.append(text[position:])
    return "".join(parts)


def kernel_signatures(source: str) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every ``extern "C" __global__`` function of a source, by name.

    Parameters
    ----------
    source : str
        CUDA C++.

    Returns
    -------
    signatures : dict of str to tuple of Parameter
        In the order of the source.
    """
    plain = COMMENT.sub(" ", source)
    return {
        match[1]: tuple(_parameter(text) for text in match[2].split(",") if text.strip())
        for match in KERNEL.finditer(plain)
    }


def _parameter(text: str) -> Parameter:
    words = [word for word in re.findall(r"\w+|\*", text) if word not in ("__restrict__", "volatile")]
    is_pointer = "*" in words
    is_const = "const" in words
    *ctype, name = [word for word in words if word not in ("*", "const")]
    return Parameter(name, " ".join(ctype), is_pointer, is_const)
