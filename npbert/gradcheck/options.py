"""The options of a check: what may be asked for, and the line of Python that asks for it again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from npbert.gradcheck import compare, mpmath_forwards, mpmath_oracle
from npbert.gradcheck.pair import Leaf, name_of

ORACLES = ("auto", "complex_step", "ridders", "mpmath")
MODES = ("gradient", "jacobian", "directional")
MAX_COORDINATES = 1000
DIRECTIONS = 3

# Of the options of `check`, in the order of its signature.
DEFAULTS: dict[str, Any] = {
    "convention": None,
    "parameters": (),
    "oracle": "auto",
    "fn_mpmath": None,
    "names": None,
    "seed": 0,
    "rtol": None,
    "max_coordinates": MAX_COORDINATES,
    "structural_zeros": (),
    "mode": "gradient",
    "directions": DIRECTIONS,
}


@dataclass(frozen=True)
class Settings:
    """The options of one check. ``zeros`` maps the declared structural zeros to their scales, if given."""

    oracle: str
    rtol: float | None
    seed: int
    max_coordinates: int
    zeros: dict[str, float | None]

    mode: str = "gradient"
    directions: int = DIRECTIONS
    mpmath_given: bool = False

    def tolerance(self, oracle: str) -> float:
        """Return the tolerance of a comparison with an oracle, relative."""
        return compare.DEFAULT_RTOL[oracle or "complex_step"] if self.rtol is None else self.rtol

    def zero_scale(self, name: str, largest: float) -> float | None:
        """Return what a declared zero is tested against, None for a tensor that is not declared one."""
        return (self.zeros[name] or largest) if name in self.zeros else None


def validate(args: Any, options: Mapping[str, Any]) -> None:
    """Refuse a call that makes no sense; what the pair does wrong is not its business."""
    if not isinstance(args, (tuple, list)):
        raise ValueError(f"args must be a tuple or list of arguments, got {type(args).__name__}")
    for name, known in (("oracle", ORACLES), ("mode", MODES)):
        if options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {options[name]!r}")
    for name, least in (("seed", 0), ("max_coordinates", 1), ("directions", 1)):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    rtol = options["rtol"]
    if rtol is not None and not (isinstance(rtol, (float, np.floating)) and 0 < rtol < 1):
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol!r}")


def choose_mpmath_forward(fn: Any, options: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the forward on mpmath's numbers: the one given, or this package's own of one of its ops.

    Raises
    ------
    ValueError
        If mpmath is asked for and cannot be used.
    """
    given = options["fn_mpmath"]
    if given is not None and not callable(given):
        raise ValueError(f"fn_mpmath must be callable, got {type(given).__name__}")
    installed = mpmath_oracle.is_installed()
    found = given or mpmath_forwards.registered(fn)
    asked = given is not None or options["oracle"] == "mpmath"
    if asked and not installed:
        raise ValueError("mpmath is not installed: pip install mpmath")
    if asked and found is None:
        raise ValueError("oracle='mpmath' needs fn_mpmath, the forward on mpmath's numbers")
    if asked and options["mode"] != "gradient":
        raise ValueError(f"mpmath is used in mode='gradient' only, got mode={options['mode']!r}")
    return found if installed else None


def declared_zeros(
    structural_zeros: Iterable[str] | Mapping[str, float | None], leaves: Sequence[Leaf]
) -> dict[str, float | None]:
    """Return the declared zeros by name, patterns resolved."""
    if isinstance(structural_zeros, str):
        raise ValueError(f"structural_zeros must be a collection of names, got {structural_zeros!r}")
    given = structural_zeros if isinstance(structural_zeros, Mapping) else dict.fromkeys(structural_zeros)
    found: dict[str, float | None] = {}
    for pattern, scale in given.items():
        if not isinstance(pattern, str):
            raise ValueError(f"structural_zeros must be a collection of names, got {pattern!r} in it")
        matches = [leaf.name for leaf in leaves if fnmatchcase(leaf.name, pattern)]
        if not matches:
            known = ", ".join(leaf.name for leaf in leaves)
            raise ValueError(f"structural_zeros names {pattern!r}, which matches none of: {known}")
        if scale is not None and not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
            raise ValueError(f"structural_zeros[{pattern!r}] must be positive and finite, got {scale}")
        found.update(dict.fromkeys(matches, scale))
    return found


def reproduce(
    fn: Any,
    backward: Any,
    options: Mapping[str, Any],
    function: str = "check",
    defaults: Mapping[str, Any] = DEFAULTS,
) -> str:
    """Return the call as a line of Python, without the options that were left at their defaults."""
    extra = "".join(
        f", {key}={_written(value)}"
        for key, value in options.items()
        if key != "seed" and value != defaults[key]
    )
    functions = [fn, *([] if backward is None else [backward])]
    is_object = backward is None and not hasattr(fn, "__name__")
    written = [f"{name_of(function)}{'(...)' if is_object else ''}" for function in functions]
    args = "args=args" if backward is None else "args"
    call = f"npbert.gradcheck.{function}({', '.join(written)}, {args}, seed={options['seed']}{extra}"
    sources = [type(fn)] if is_object else functions
    if not all(map(_is_global, sources)):
        return f"{call})"
    imported: dict[str, list[str]] = {}
    for source in sources:
        imported.setdefault(source.__module__, []).append(source.__name__)
    imports = [f"from {module} import {', '.join(names)}; " for module, names in imported.items()]
    return f"{''.join(imports)}{call})"


def _written(value: Any) -> str:
    if callable(value):
        return name_of(value)
    return repr(value.item() if isinstance(value, np.generic) else value)


def _is_global(function: Any) -> bool:
    return str(getattr(function, "__qualname__", ".")).isidentifier()
