"""The options of a check: what may be asked for, and the line of Python that asks for it again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from npbert.gradcheck import compare
from npbert.gradcheck.pair import Leaf, name_of

ORACLES = ("auto", "complex_step", "ridders")
MODES = ("gradient", "jacobian", "directional")
MAX_COORDINATES = 1000
DIRECTIONS = 3


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

    def tolerance(self, oracle: str) -> float:
        """Return the tolerance of a comparison with an oracle, relative."""
        return compare.DEFAULT_RTOL[oracle or "complex_step"] if self.rtol is None else self.rtol

    def zero_scale(self, name: str, largest: float) -> float | None:
        """Return what a declared zero is tested against, None for a tensor that is not declared one."""
        return (self.zeros[name] or largest) if name in self.zeros else None


def validate(fn: Any, backward: Any, args: Any, options: Mapping[str, Any]) -> None:
    """Refuse a call that makes no sense; what the pair does wrong is not its business."""
    for name, value in (("fn", fn), ("backward", backward)):
        if not callable(value):
            raise ValueError(f"{name} must be callable, got {type(value).__name__}")
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
    fn: Callable[..., Any],
    backward: Callable[..., Any],
    settings: Settings,
    names: Sequence[str] | None,
    structural_zeros: Iterable[str] | Mapping[str, float | None],
) -> str:
    """Return the call as a line of Python, without the options that were left at their defaults."""
    options = [
        ("oracle", settings.oracle, "auto"),
        ("names", None if names is None else list(names), None),
        ("rtol", settings.rtol, None),
        ("max_coordinates", settings.max_coordinates, MAX_COORDINATES),
        ("structural_zeros", structural_zeros, ()),
        ("mode", settings.mode, "gradient"),
        ("directions", settings.directions, DIRECTIONS),
    ]
    extra = "".join(f", {key}={value!r}" for key, value, default in options if value != default)
    call = f"npbert.gradcheck.check({name_of(fn)}, {name_of(backward)}, args, seed={settings.seed}{extra})"
    if not (_is_global(fn) and _is_global(backward)):
        return call
    functions = {fn.__module__: [name_of(fn)]}
    functions.setdefault(backward.__module__, []).append(name_of(backward))
    imports = [f"from {module} import {', '.join(found)}; " for module, found in functions.items()]
    return "".join(imports) + call


def _is_global(function: Callable[..., Any]) -> bool:
    return getattr(function, "__qualname__", ".").isidentifier()
