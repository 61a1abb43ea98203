"""The text of a kernel, as a compiler gets it, and what can be read off it: its kernels and their arguments.

A kernel is one source string. ``#include "x.cuh"`` of a file beside it is replaced by that file's text: with
a single string there is no include path to get wrong, and no cache that misses a change of an included file.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

INCLUDE = re.compile(r'^[ \t]*#include[ \t]+"([^"]+)"[ \t]*$', re.MULTILINE)
_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)')
_LINE = re.compile(r'^#line (\d+) "([^"]+)"$', re.MULTILINE)
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_QUALIFIERS = ("const", "volatile", "__restrict__")


class Parameter(NamedTuple):
    """One parameter of a kernel."""

    name: str
    ctype: str  # "float", "unsigned char", ...; REAL and ACC are not resolved
    is_pointer: bool
    is_const: bool  # of a pointer: whether what it points to is only read


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

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "pi.cuh").write_text("constexpr double PI = 3.14159;")
    ...     print(inline_includes('#include "pi.cuh"\\nint after;', "circle.cu", Path(folder)))
    #line 1 "circle.cu"
    #line 1 "pi.cuh"
    constexpr double PI = 3.14159;
    #line 2 "circle.cu"
    int after;
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


def blank_comments(source: str, *, strings: bool = False) -> str:
    """Return a source of the same length and lines, in which comments are spaces.

    Parameters
    ----------
    source : str
    strings : bool
        Whether strings become spaces, too.

    Returns
    -------
    text : str
        What is found in it is at the same place in the source.

    Examples
    --------
    >>> blank_comments("int n;  // how many")
    'int n;             '
    """

    def blanked(match: re.Match[str]) -> str:
        if match[0].startswith('"') and not strings:
            return match[0]
        return re.sub(r"[^\n]", " ", match[0])

    return _STRING_OR_COMMENT.sub(blanked, source)


def place_of(source: str, offset: int, name: str) -> str:
    """Return the place of a character, as a compiler would name it.

    Parameters
    ----------
    source : str
        Perhaps with ``#line`` directives.
    offset : int
        Of the character.
    name : str
        What the source is called where no directive says it.

    Returns
    -------
    place : str
        Like ``"layernorm.cu:87"``.
    """
    line, start = 1, 0
    for directive in _LINE.finditer(source, 0, offset):
        line, name, start = int(directive[1]), directive[2], directive.end() + 1
    return f"{name}:{line + source.count(chr(10), start, offset)}"


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

    Examples
    --------
    >>> kernel_signatures('extern "C" __global__ void fill(float *x, int n) {}')["fill"][0]
    Parameter(name='x', ctype='float', is_pointer=True, is_const=False)
    """
    return {
        match[1]: tuple(_parameter(text) for text in match[2].split(",") if text.strip() not in ("", "void"))
        for match in KERNEL.finditer(blank_comments(source))
    }


def _parameter(text: str) -> Parameter:
    """Read one parameter: ``const REAL *__restrict__ x``, ``float x[]``, ``unsigned int n``."""
    words = re.findall(r"\w+|\*", re.sub(r"\[[^\]]*\]", "", text))
    stars = words.count("*") + ("[" in text)
    pointed_to = words[: words.index("*")] if "*" in words else words
    *ctype, name = [word for word in words if word not in (*_QUALIFIERS, "*")]
    pointers = ["*"] * (stars - 1)  # of a pointer to pointers, which no launch can pass
    return Parameter(name, " ".join(ctype + pointers), stars > 0, "const" in pointed_to)
