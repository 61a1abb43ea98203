"""Pairs on CuPy arrays: the checker computes with NumPy, and moves arrays to and from the device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npbert.gradcheck.pair import BrokenPair, name_of
from npbert.ops.array_module import array_module

Function = Callable[..., Any]


def on_host(fn: Function, backward: Function, args: Sequence[Any]) -> tuple[Function, Function, list[Any]]:
    """Return a pair on NumPy arrays that does the work of one on the arrays of another library.

    Parameters
    ----------
    fn, backward : callable
        The pair, in the convention "cache".
    args : sequence
        Its arguments; arrays of the other library may also be in dictionaries.

    Returns
    -------
    fn, backward : callable
        Take and return NumPy arrays. What the pair writes to its arguments and cotangents is written to
        theirs, so that it is seen. They are the given ones if all arrays are NumPy's.
    args : list
        The arguments, as NumPy arrays.
    """
    modules = {array_module(value) for arg in args for value in _values(arg)} - {np}
    if not modules:
        return fn, backward, list(args)
    (xp,) = modules
    moves = [any(array_module(value) is xp for value in _values(arg)) for arg in args]

    def forward_on_host(*host: Any) -> Any:
        device = [_to_device(arg, xp) if move else arg for arg, move in zip(host, moves, strict=True)]
        returned = fn(*device)
        _write_back(host, device)
        if not isinstance(returned, tuple) or len(returned) != 2:
            return returned
        output, cache = returned
        return _to_host(output), (cache, host, device)

    def backward_on_host(doutput: Any, cache: Any) -> Any:
        cache, host, device = cache
        given = _to_device(doutput, xp)
        returned = backward(given, cache)
        _write_back(host, device)
        _write_back([doutput], [given])
        _refuse_host_arrays(returned, xp)
        return _to_host(returned)

    forward_on_host.__name__ = name_of(fn)
    backward_on_host.__name__ = name_of(backward)
    return forward_on_host, backward_on_host, [_to_host(arg) for arg in args]


def _values(arg: Any) -> list[Any]:
    return list(arg.values()) if isinstance(arg, dict) else [arg]


def _to_host(value: Any) -> Any:
    """Return device arrays as NumPy arrays, in tuples, lists and dictionaries too; anything else as it is."""
    if isinstance(value, dict):
        return {key: _to_host(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_to_host(one) for one in value)
    xp = array_module(value)
    return value if xp is np else xp.asnumpy(value)


def _to_device(value: Any, xp: Any) -> Any:
    """Return NumPy arrays as device arrays; those that are not contiguous stay so."""
    if isinstance(value, dict):
        return {key: _to_device(one, xp) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_to_device(one, xp) for one in value)
    if not isinstance(value, np.ndarray):
        return value
    if value.flags.c_contiguous:
        return xp.asarray(value)
    gap = np.nan if value.dtype.kind in "fc" else 0
    wide = np.full((*value.shape[:-1], 2 * value.shape[-1]), gap, value.dtype)
    wide[..., ::2] = value
    return xp.asarray(wide)[..., ::2]


def _write_back(host: Sequence[Any], device: Sequence[Any]) -> None:
    """Write what is in the device arrays to the NumPy arrays that they were made from."""
    for one, two in zip(host, device, strict=True):
        if isinstance(one, dict):
            _write_back([one[key] for key in one], [two.get(key) for key in one])
        elif isinstance(one, (tuple, list)):
            _write_back(one, two)
        elif isinstance(one, np.ndarray) and array_module(two) is not np:
            one[...] = _to_host(two)


def _refuse_host_arrays(returned: Any, xp: Any) -> None:
    """A NumPy gradient of a device argument has come over the bus, which its author did not intend."""
    several = returned if isinstance(returned, (tuple, list)) else (returned,)
    for gradient in several:
        if any(isinstance(value, np.ndarray) for value in _values(gradient)):
            detail = f"a gradient is a NumPy array, the arguments are {xp.__name__}'s"
            raise BrokenPair("gradient on the device", detail)
