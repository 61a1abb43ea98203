"""The libraries that npbert is compared with, one a file; none is imported before it is asked for."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """A library, or a way to use one.

    Attributes
    ----------
    name : str
        As it stands in a table.
    modules : tuple of str
        What has to be importable.
    packages : tuple of str
        What pip calls these.
    build : callable
        Prepares it for a piece of work; the arguments are the benchmark's.
    """

    name: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    build: Callable[..., Any]


def missing(peer: Peer) -> str:
    """Return what to do for a peer to take part; "" if it can.

    Examples
    --------
    >>> missing(Peer("none", ("no_such_module",), ("no-such-package",), build=print))
    'not installed: pip install no-such-package'
    """
    absent = [
        package
        for module, package in zip(peer.modules, peer.packages, strict=True)
        if not _is_installed(module)
    ]
    return f"not installed: pip install {' '.join(absent)}" if absent else ""


def split_by_presence(peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Return the peers that can take part, and by name what to install for the others."""
    absent = {peer.name: missing(peer) for peer in peers}
    return [peer for peer in peers if not absent[peer.name]], {
        name: why for name, why in absent.items() if why
    }


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent package is absent, or it is half-imported
        return False
