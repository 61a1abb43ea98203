"""Checks of what kernels and their launchers are given. Every rejection is a ValueError that names it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npbert.cuda.source import Parameter
from npbert.ops.array_module import Array, array_module

# NumPy's dtype for each C type that a kernel's parameter may have.
DTYPES = {
    "double": np.float64,
    "float": np.float32,
    "__half": np.float16,
    "half": np.float16,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "bool": np.bool_,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "long long": np.int64,
    "unsigned int": np.uint32,
    "unsigned": np.uint32,
    "unsigned long long": np.uint64,
}
FLOATING = ("float64", "float32", "float16")
MAX_THREADS = 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)


def bind_arguments(
    kernel: str, parameters: Sequence[Parameter], defines: Mapping[str, str], args: Sequence[Any]
) -> list[Any]:
    """Check arguments against a kernel's signature, and cast its numbers.

    Parameters
    ----------
    kernel : str
        Its name, for messages.
    parameters : sequence of Parameter
    defines : mapping of str to str
        What the preprocessor replaces in types, like ``{"REAL": "float"}``.
    args : sequence
        Arrays, None for null pointers, and numbers.

    Returns
    -------
    values : list
        The arrays as they are (empty ones, too), the numbers as NumPy scalars of the C type.

    Raises
    ------
    ValueError
        For a wrong number of arguments, a wrong dtype, an array that is not contiguous or not aligned, or not
        writable though the kernel writes to it, arrays of different devices, a number that does not fit.
    """
    if len(args) != len(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise ValueError(f"{kernel} takes {len(parameters)} arguments ({names}), got {len(args)}")
    values = []
    places: dict[str, str] = {}
    for parameter, value in zip(parameters, args, strict=True):
        what = f"{kernel}: {parameter.name}"
        dtype = _dtype(what, parameter, defines)
        if parameter.is_pointer:
            if value is not None:
                _check_array(what, value, dtype, parameter.is_const)
                places.setdefault(_place(value), parameter.name)
            values.append(value)
        else:
            values.append(_number(what, value, dtype))
    if len(places) > 1:
        (one, first), (two, second) = list(places.items())[:2]
        raise ValueError(f"{kernel}: {first} is on {one}, {second} on {two}; all arrays must be in one place")
    return values


def check_grid(kernel: str, grid: Sequence[int], block: Sequence[int]) -> None:
    """Check the numbers of blocks and threads against what every CUDA device allows.

    A grid of no blocks is an error, as on a device: with nothing to do, a launcher must not launch.
    """
    for what, sizes, limits in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"{kernel}: {what} is {tuple(sizes)}; it must have one to three sizes")
        for size, limit in zip(sizes, limits, strict=False):
            if not isinstance(size, int | np.integer) or not 1 <= size <= limit:
                raise ValueError(
                    f"{kernel}: {what} is {tuple(sizes)}; sizes must be integers in [1, {limit}]"
                )
    threads = int(np.prod(block))
    if threads > MAX_THREADS:
        raise ValueError(f"{kernel}: a block of {tuple(block)} has {threads} threads; at most {MAX_THREADS}")


def check_floating(op: str, **arrays: Array | None) -> None:
    """Check that arrays are floating, of one dtype that kernels exist for, and in one place.

    Parameters
    ----------
    op : str
        Name of the op, for messages.
    **arrays : array or None
        By name; None is passed over.

    Raises
    ------
    ValueError
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    for name, array in given.items():
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise ValueError(f"{op}: {name} is a {type(array).__name__}, not an array")
        if np.dtype(array.dtype).name not in FLOATING:
            raise ValueError(f"{op}: {name} is {array.dtype}; it must be one of {', '.join(FLOATING)}")
    _check_alike(op, {name: np.dtype(array.dtype).name for name, array in given.items()}, "dtype")
    check_one_place(op, **given)


def check_one_place(op: str, **arrays: Array | None) -> None:
    """Check that all arrays are NumPy's, or all on one device; None is passed over."""
    places = {name: _place(array) for name, array in arrays.items() if array is not None}
    _check_alike(op, places, "place")


def check_shape(op: str, name: str, array: Array, expected: tuple[int, ...]) -> None:
    """Check that it is an array, and its shape."""
    if not hasattr(array, "shape"):
        raise ValueError(f"{op}: {name} is a {type(array).__name__}, not an array")
    if array.shape != expected:
        raise ValueError(f"{op}: {name} has shape {array.shape}; expected {expected}")


def check_rows(op: str, name: str, array: Array) -> None:
    """Check that it is an array with a last axis, of at least one element."""
    shape = getattr(array, "shape", None)
    if shape is None:
        raise ValueError(f"{op}: {name} is a {type(array).__name__}, not an array")
    if not shape or shape[-1] == 0:
        raise ValueError(f"{op}: {name} has shape {shape}; its rows must have at least one element")


def check_mask(op: str, name: str, mask: Array, expected: tuple[int, ...]) -> None:
    """Check that a mask is boolean and has the expected shape."""
    if not hasattr(mask, "dtype") or mask.dtype != np.bool_:
        raise ValueError(f"{op}: {name} is {getattr(mask, 'dtype', type(mask).__name__)}; it must be bool")
    check_shape(op, name, mask, expected)


def _check_alike(op: str, values: Mapping[str, str], what: str) -> None:
    named = list(values.items())
    for name, value in named[1:]:
        if value != named[0][1]:
            raise ValueError(
                f"{op}: {named[0][0]} is {_in(what)}{named[0][1]}, {name} {_in(what)}{value}; "
                f"they must have the same {what}"
            )


def _in(what: str) -> str:
    return "on " if what == "place" else ""


def _place(array: Any) -> str:
    xp = array_module(array)
    return "the host (NumPy)" if xp is np else f"device {array.device.id} ({xp.__name__})"


def _dtype(what: str, parameter: Parameter, defines: Mapping[str, str]) -> np.dtype[Any]:
    ctype = defines.get(parameter.ctype, parameter.ctype)
    if ctype not in DTYPES:
        raise ValueError(f"{what} has the type {ctype}; a launch can pass: {', '.join(DTYPES)}")
    return np.dtype(DTYPES[ctype])


def _check_array(what: str, value: Any, dtype: np.dtype[Any], is_const: bool) -> None:
    if not isinstance(value, array_module(value).ndarray):  # a NumPy scalar is none
        raise ValueError(f"{what} is a {type(value).__name__}; it must be an array or None")
    is_byte_mask = value.dtype == np.bool_ and dtype == np.uint8
    if value.dtype != dtype and not is_byte_mask:
        raise ValueError(f"{what} is {value.dtype}; the kernel takes {dtype}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{what} is not C-contiguous: shape {value.shape}, strides {value.strides}")
    if array_module(value) is not np:
        return
    if not value.flags.aligned:
        raise ValueError(f"{what} is not aligned: its address is no multiple of {dtype.alignment} bytes")
    if not is_const and not value.flags.writeable:
        raise ValueError(f"{what} is read-only, and the kernel writes to it")


def _number(what: str, value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.bool_ | np.integer | np.floating):
        value = value.item()
    if not isinstance(value, int | float):
        raise ValueError(f"{what} is {value!r}; it must be a number")
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        if largest < abs(value) < np.inf:
            raise ValueError(f"{what} is {value}; {dtype} goes up to {largest:.6g}")
        return dtype.type(value)
    if not isinstance(value, int):
        raise ValueError(f"{what} is {value!r}; it must be an integer")
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not lowest <= value <= highest:
        raise ValueError(f"{what} is {value}; it must be in [{lowest}, {highest}]")
    return dtype.type(value)
