"""What a diagnosis is, and what a mistake is that the caller knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """A backward that is wrong in a known way.

    Attributes
    ----------
    name : str
        A short name, such as ``"forgets the mean term"``.
    description : str
        The sentence for whoever made this mistake.
    backward : callable
        ``backward(doutput, cache)``, as `npbert.gradcheck.check` takes it; it gets the cache of the forward
        under test.
    """

    name: str
    description: str
    backward: Callable[..., Any]


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of what is wrong.

    Attributes
    ----------
    kind : str
        The pattern, one of `npbert.gradcheck.diagnosis.order.KINDS`.
    tensors : tuple of str
        The gradients that it explains, by the names of their tensors.
    sentence : str
        The explanation.
    confidence : float
        The fraction of the error that the pattern explains; for a hint that explains no figures, at most 0.5.
    evidence : mapping of str to float
        The figures behind it.
    mistake : str
        Name of the `Mistake`, where the kind is ``"known mistake"``.
    """

    kind: str
    tensors: tuple[str, ...]
    sentence: str
    confidence: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    mistake: str = ""


@dataclass(frozen=True)
class Clue:
    """A pattern in one gradient: a `Diagnosis` whose sentence still lacks its subject."""

    kind: str
    text: str
    confidence: float = 1.0
    evidence: Mapping[str, float] = field(default_factory=dict)


def gradient_of(name: str) -> str:
    """Return what sentences call a gradient.

    Examples
    --------
    >>> gradient_of("x"), gradient_of("dense.weight")
    ('dx', 'the gradient of dense.weight')
    """
    return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def listed(names: Sequence[str]) -> str:
    """Return names as an enumeration.

    Examples
    --------
    >>> listed(["dq", "dk", "dv"])
    'dq, dk and dv'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def subject(names: Sequence[str]) -> str:
    """Return the subject of a sentence in the singular about some gradients.

    Examples
    --------
    >>> subject(["q", "k"])
    'each of dq and dk'
    >>> subject(["dense.weight", "dense.bias"])
    'each of the gradients of dense.weight and dense.bias'
    """
    if len(names) == 1:
        return gradient_of(names[0])
    shown = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else [*names]
    if all(name.isidentifier() for name in names):
        return f"each of {listed([f'd{name}' if name in names else name for name in shown])}"
    return f"each of the gradients of {listed(shown)}"
