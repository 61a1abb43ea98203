"""The pair under test: calling the two functions, and everything they can do wrong while being called."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class BrokenPair(Exception):
    """One of the two functions did something after which nothing else can be checked.

    Attributes
    ----------
    check : str
        The property that does not hold, as a report names it.
    detail : str
        What happened.
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


@dataclass(frozen=True)
class Leaf:
    """A floating-point array among the arguments: something to differentiate with respect to.

    Attributes
    ----------
    name : str
        How reports call it.
    position : int
        Which argument it is, or is in.
    key : object
        Its key, where the argument is a dictionary; None where the argument is the array.
    value : ndarray
        The array, with the caller's dtype.
    """

    name: str
    position: int
    key: Any
    value: Array


@dataclass(frozen=True)
class Forward:
    """What one call of the forward returned: its outputs as a tuple, and its cache."""

    outputs: tuple[Any, ...]
    cache: Any
    is_tuple: bool


@dataclass(frozen=True)
class Pair:
    """A forward, a backward, and the arguments at which they are checked.

    ``fn_mpmath`` is the forward on mpmath's numbers, where there is one (`npbert.gradcheck.mpmath_oracle`).
    """

    fn: Callable[..., Any]
    backward: Callable[..., Any]
    args: tuple[Any, ...]
    leaves: tuple[Leaf, ...]
    fn_mpmath: Callable[..., Any] | None = None

    def arguments(self, values: Sequence[Array], copy: bool = True) -> list[Any]:
        """Return the arguments with the leaves replaced by ``values``.

        With ``copy``, whatever the pair does to its arguments, it does to copies.
        """
        args = [copied(arg) if copy else _shallow(arg) for arg in self.args]
        for leaf, value in zip(self.leaves, values, strict=True):
            fresh = value.copy() if copy else value
            if leaf.key is None:
                args[leaf.position] = fresh
            else:
                args[leaf.position][leaf.key] = fresh
        return args

    def forward(self, args: Sequence[Any]) -> Forward:
        """Call the forward.

        Raises
        ------
        BrokenPair
            If it raises, or does not return an output and a cache.
        """
        try:
            returned = self.fn(*args)
        except BrokenPair:
            raise  # what moves the arrays to a device has found something
        except Exception as error:
            raise BrokenPair("forward runs", f"{name_of(self.fn)} raised {describe(error)}") from error
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise BrokenPair(
                "forward returns (output, cache)",
                f"{name_of(self.fn)} returned {_kind(returned)}, not a pair",
            )
        output, cache = returned
        is_tuple = isinstance(output, (tuple, list))
        several = output if is_tuple else (output,)
        try:
            outputs = tuple(None if one is None else np.asarray(one) for one in several)
        except ValueError as error:
            raise BrokenPair("output is floating-point", f"an output is no array: {error}") from error
        return Forward(outputs, cache, is_tuple)

    def gradients_at(self, values: Sequence[Array], cotangents: Sequence[Any]) -> list[Any]:
        """Run both functions, on copies of everything; return what `gradients` does."""
        given = [None if dout is None else dout.copy() for dout in cotangents]
        return self.gradients(given, self.forward(self.arguments(values)))

    def gradients(self, cotangents: Sequence[Any], forward: Forward) -> list[Any]:
        """Call the backward; return what it gave for each leaf, whatever that is.

        Raises
        ------
        BrokenPair
            If it raises, or returns another number of gradients than there are differentiable arguments.
        """
        try:
            returned = self.backward(tuple(cotangents) if forward.is_tuple else cotangents[0], forward.cache)
        except BrokenPair:
            raise
        except Exception as error:
            raise BrokenPair("backward runs", f"{name_of(self.backward)} raised {describe(error)}") from error
        if not isinstance(returned, (tuple, list)):
            returned = (returned,)
        aligned = _align(list(returned), self.args, sorted({leaf.position for leaf in self.leaves}))
        gradients = []
        for leaf in self.leaves:
            gradient = aligned[leaf.position]
            if leaf.key is not None:
                _refuse_unknown_keys(gradient, self.args[leaf.position])
                gradient = gradient.get(leaf.key) if isinstance(gradient, dict) else None
            gradients.append(gradient)
        return gradients


def find_leaves(fn: Callable[..., Any], args: Sequence[Any], names: Sequence[str] | None) -> tuple[Leaf, ...]:
    """Return the floating-point arrays among the arguments, named.

    Parameters
    ----------
    fn : callable
        Where the names come from if ``names`` is None: its parameters.
    args : sequence
        The arguments.
    names : sequence of str or None
        One name an argument.

    Returns
    -------
    tuple of Leaf
        In the order of the arguments. An entry of a dictionary is called by its key, preceded by the
        argument's name and a dot where that alone would be ambiguous.

    Raises
    ------
    ValueError
        If there is none, an array holds complex, NaN or infinite numbers, or the names do not fit.
    """
    argument_names = list(names) if names is not None else parameter_names(fn, len(args))
    if len(argument_names) != len(args):
        raise ValueError(f"names has {len(argument_names)} entries, but there are {len(args)} arguments")
    if len(set(argument_names)) != len(argument_names):
        raise ValueError(f"names must differ from one another, got {argument_names}")
    found = [
        (name, position, key, value)
        for position, (name, arg) in enumerate(zip(argument_names, args, strict=True))
        for key, value in _arrays(arg)
    ]
    for name, _, key, value in found:
        _refuse_complex_and_nonfinite(name if key is None else f"{name}[{key!r}]", value)
    found = [entry for entry in found if _is_floating(entry[3])]
    if not found:
        raise ValueError("args holds no floating-point array, so there is no gradient to check")
    short = [name if key is None else str(key) for name, _, key, _ in found]
    return tuple(
        Leaf(plain if short.count(plain) == 1 else f"{name}.{plain}", position, key, value)
        for plain, (name, position, key, value) in zip(short, found, strict=True)
    )


def name_of(function: Callable[..., Any]) -> str:
    """Return what a reader would call the function."""
    return str(getattr(function, "__name__", type(function).__name__))


def describe(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of its message."""
    message = str(error).splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def _align(returned: list[Any], args: Sequence[Any], positions: list[int]) -> dict[int, Any]:
    """Return the gradient of each differentiable argument, by its position.

    For an argument that was None, or left at its default, a backward may return None, or nothing.
    """
    surplus = len(returned) - len(positions)
    aligned, rest = {}, list(returned)
    for position, arg in enumerate(args):
        if position in positions and rest:
            aligned[position] = rest.pop(0)
        elif arg is None and surplus > 0 and rest and rest[0] is None:
            rest.pop(0)
            surplus -= 1
    if surplus != 0 and not (surplus == len(rest) and all(gradient is None for gradient in rest)):
        raise BrokenPair(
            "gradient count",
            f"backward returned {len(returned)} gradients, the arguments need {len(positions)}",
        )
    return aligned


def _refuse_unknown_keys(gradient: Any, arg: dict[Any, Any]) -> None:
    unknown = [key for key in gradient if key not in arg] if isinstance(gradient, dict) else []
    if unknown:
        raise BrokenPair("gradient count", f"a gradient has entries that its argument has not: {unknown}")


def parameter_names(fn: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first ``count`` positional parameters, or arg0, arg1, ... where unknown."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional][:count]
    return names + [f"arg{position}" for position in range(len(names), count)]


def _arrays(arg: Any) -> Iterator[tuple[Any, Array]]:
    """Yield the arrays of an argument with their keys: itself (key None), or a dictionary's entries."""
    if isinstance(arg, np.ndarray):
        yield None, arg
    elif isinstance(arg, dict):
        yield from ((key, value) for key, value in arg.items() if isinstance(value, np.ndarray))


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _refuse_complex_and_nonfinite(name: str, value: Array) -> None:
    if np.issubdtype(value.dtype, np.complexfloating):
        raise ValueError(f"{name} has dtype {value.dtype}; only gradients of real arrays are checked")
    if _is_floating(value) and not np.all(np.isfinite(value)):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise ValueError(f"{name} must be finite, got {value[index]} at {list(index)}")


def copied(arg: Any) -> Any:
    """Return a copy of an argument: of the array, or of the arrays in a dictionary."""
    if isinstance(arg, np.ndarray):
        return arg.copy()
    if isinstance(arg, dict):
        return {key: copied(value) for key, value in arg.items()}
    return arg


def _shallow(arg: Any) -> Any:
    return dict(arg) if isinstance(arg, dict) else arg


def _kind(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"{type(value).__name__}"
