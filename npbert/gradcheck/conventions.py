"""The ways in which a forward and a backward may be written, brought to one: a cache between two functions.

=============  =====================================  ===========================================
convention     forward                                backward
=============  =====================================  ===========================================
"cache"        ``fn(*args) -> output, cache``         ``backward(doutput, cache) -> gradients``
"arguments"    ``fn(*args) -> output``                ``backward(doutput, *args) -> gradients``
"pullback"     ``fn(*args) -> output, pullback``      ``pullback(doutput) -> gradients``
"object"       ``obj.forward(*args) -> output``       ``obj.backward(doutput) -> gradients``
"object"       ``obj.forward(*args) -> output,        ``obj.backward(doutput, cache) ->
               cache``                                gradients``
=============  =====================================  ===========================================

Which of the two kinds an object is, the signature of its ``backward`` says: by the number of parameters
without a default.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from npbert.gradcheck.pair import name_of, parameter_names

CONVENTIONS = ("cache", "arguments", "pullback", "object")
Function = Callable[..., Any]


class Adapted(NamedTuple):
    """A pair in the convention "cache", and the arguments that its forward takes."""

    fn: Function
    backward: Function
    args: Any
    first: tuple[str, ...] = ()  # names of arguments that were put before the caller's


def choose_convention(convention: str | None, backward: Any) -> str:
    """Return the convention to use: as asked for, else what the number of functions suggests.

    Raises
    ------
    ValueError
        If there is no such convention, or the number of functions does not fit it.
    """
    if convention is None:
        return "object" if backward is None else "cache"
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    if (backward is None) != (convention in ("pullback", "object")):
        must = "must" if backward is None else "must not"
        raise ValueError(f"backward {must} be given with convention={convention!r}")
    return convention


def adapt(
    convention: str,
    fn: Any,
    backward: Any,
    args: Any,
    parameters: Mapping[str, str] | Sequence[str],
) -> Adapted:
    """Return the pair in the convention "cache".

    Parameters
    ----------
    convention : str
        One of `CONVENTIONS`.
    fn, backward : callable, or an object and None
        As the convention says.
    args : sequence
        The arguments of the forward.
    parameters : mapping from str to str, or sequence of str
        Attributes of an object to differentiate with respect to, and those that hold the gradients after
        ``backward``: by default the same name after a ``d``.

    Raises
    ------
    ValueError
        If the functions or the parameters are not what the convention asks for.
    """
    if parameters and convention != "object":
        raise ValueError(f"parameters are attributes of an object; here the convention is {convention!r}")
    if convention == "object":
        return _from_object(fn, args, parameters)
    if backward is not None and not callable(backward):
        hint = "" if args is not None else ": without one, give args by name, check(obj, args=...)"
        raise ValueError(f"backward must be callable, got {type(backward).__name__}{hint}")
    if not callable(fn):
        raise ValueError(f"fn must be callable, got {type(fn).__name__}")
    if convention == "arguments":
        return Adapted(*_from_arguments(fn, backward), args)
    if convention == "pullback":
        return Adapted(fn, _pull_back, args)
    return Adapted(fn, backward, args)


def name_arguments(adapted: Adapted, names: Sequence[str] | None) -> list[str]:
    """Return one name an argument: those given, else those of the forward's parameters."""
    if names is None:
        return parameter_names(adapted.fn, len(adapted.args))
    return [*adapted.first, *names]


def _from_arguments(fn: Function, backward: Function) -> tuple[Function, Function]:
    def forward(*args: Any) -> Any:
        return fn(*args), args

    def backward_of_arguments(doutput: Any, args: tuple[Any, ...]) -> Any:
        return backward(doutput, *args)

    return _named(forward, fn, name_of(fn)), _named(backward_of_arguments, backward, name_of(backward))


def _pull_back(doutput: Any, pullback: Function) -> Any:
    return pullback(doutput)


def _from_object(obj: Any, args: Any, parameters: Mapping[str, str] | Sequence[str]) -> Adapted:
    """Return the two methods of an object as functions; the parameters become the first argument.

    They are methods of a shallow copy, so that the attributes of the caller's object stay what they are.
    """
    if isinstance(obj, type):
        try:
            obj = obj()
        except TypeError as error:
            message = f"fn is the class {obj.__name__}, which takes arguments ({error}): give an object of it"
            raise ValueError(message) from error
    for name in ("forward", "backward"):
        if not callable(getattr(obj, name, None)):
            raise ValueError(
                f"without a backward, fn must be an object with the methods forward and backward; "
                f"{type(obj).__name__} has no {name}"
            )
    gradients_of = _gradient_attributes(obj, parameters)
    has_cache = _takes_a_cache(obj)
    obj = copy.copy(obj)

    def forward(*args: Any) -> Any:
        if gradients_of:
            given, args = args[0], args[1:]
            _set_parameters(obj, gradients_of, given)
        returned = obj.forward(*args)
        return returned if has_cache else (returned, None)

    def backward(doutput: Any, cache: Any) -> Any:
        returned = obj.backward(doutput, cache) if has_cache else obj.backward(doutput)
        if not gradients_of:
            return returned
        several = returned if isinstance(returned, (tuple, list)) else (returned,)
        return (_get_gradients(obj, gradients_of), *several)

    if gradients_of and isinstance(args, (tuple, list)):
        args = (_get_parameters(obj, gradients_of), *args)
    first = ("parameters",) if gradients_of else ()
    name = type(obj).__name__
    return Adapted(
        _named(forward, obj.forward, f"{name}.forward", first),
        _named(backward, obj.backward, f"{name}.backward"),
        args,
        first,
    )


def _takes_a_cache(obj: Any) -> bool:
    """Tell whether ``backward`` takes a cache, or remembers what it needs: from its signature."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        found = inspect.signature(obj.backward).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{type(obj).__name__}.backward has no signature to go by: {error}") from error
    required = [one.name for one in found if one.kind in kinds and one.default is one.empty]
    if len(required) not in (1, 2):
        raise ValueError(
            f"{type(obj).__name__}.backward must take (doutput) or (doutput, cache), "
            f"it takes ({', '.join(required)})"
        )
    return len(required) == 2


def _gradient_attributes(obj: Any, parameters: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return the attribute that holds the gradient, for each attribute that is a parameter."""
    if isinstance(parameters, str):
        raise ValueError(f"parameters must be a collection of names, got {parameters!r}")
    named = parameters if isinstance(parameters, Mapping) else {name: f"d{name}" for name in parameters}
    for name in named:
        if not hasattr(obj, name):
            raise ValueError(f"parameters names {name!r}, but {type(obj).__name__} has no such attribute")
    return dict(named)


def _get_parameters(obj: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the parameters in one dictionary: attributes, and the entries of those that are dictionaries."""
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(obj, name)
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = value
    return found


def _set_parameters(obj: Any, names: Iterable[str], given: Mapping[str, Any]) -> None:
    for name in names:
        value = getattr(obj, name)
        if isinstance(value, dict):
            setattr(obj, name, {key: given[f"{name}.{key}"] for key in value})
        else:
            setattr(obj, name, given[name])


def _get_gradients(obj: Any, gradients_of: Mapping[str, str]) -> dict[str, Any]:
    """Return the gradients under the names of the parameters; what is missing is left out."""
    found: dict[str, Any] = {}
    for name, gradient in gradients_of.items():
        value = getattr(obj, gradient, None)
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        elif value is not None:
            found[name] = value
    return found


def _named(function: Function, like: Function, name: str, first: Sequence[str] = ()) -> Function:
    """Give a function the name, and the parameters, of the one that it stands for."""
    function.__name__ = name
    try:
        parameters = list(inspect.signature(like).parameters.values())
    except (TypeError, ValueError):
        return function  # a builtin; its parameters have no names
    added = [inspect.Parameter(one, inspect.Parameter.POSITIONAL_ONLY) for one in first]
    function.__signature__ = inspect.Signature([*added, *parameters])  # type: ignore[attr-defined]
    return function
