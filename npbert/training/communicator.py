"""What the training loop asks of the processes that train together; here, of one alone."""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import numpy as np

from npbert.ops.array_module import to_numpy
from npbert.params import Params

T = TypeVar("T")


class Communicator(Protocol):
    """Processes ("ranks") that each work on some batches of a step.

    All ranks call the same methods in the same order.

    Attributes
    ----------
    rank : int
        Of this process, from 0 on; rank 0 writes the files.
    size : int
        How many there are.
    """

    rank: int
    size: int

    def sum_gradients(self, grads: Params) -> Params:
        """Return the sums over all ranks, in the order of the ranks, the same to the last bit on each.

        The arrays that are given may be changed.
        """

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the sums over all ranks, as `sum_gradients` does."""

    def gather_texts(self, text: str) -> list[str]:
        """Return the texts of all ranks, in the order of the ranks."""

    def make_once(self, make: Callable[[], T]) -> T:
        """Return, on all ranks, what the function returns on rank 0; it is called there only."""

    def wait_for_all(self) -> None:
        """Return when all ranks have called this."""


class Alone:
    """The communicator of a process that trains by itself."""

    rank = 0
    size = 1

    def sum_gradients(self, grads: Params) -> Params:
        """Return the gradients as they are."""
        return grads

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the numbers as they are."""
        return numbers

    def gather_texts(self, text: str) -> list[str]:
        """Return the one text."""
        return [text]

    def make_once(self, make: Callable[[], T]) -> T:
        """Return what the function returns."""
        return make()

    def wait_for_all(self) -> None:
        """Return at once."""


def check_agreement(ranks: Communicator, values: Mapping[str, str]) -> None:
    """Compare what has to be the same on all ranks.

    Parameters
    ----------
    ranks : Communicator
    values : mapping of str to str
        By what they are called in the message.

    Raises
    ------
    ValueError
        On all ranks, if one has another value than rank 0. Names it and the rank.
    """
    for name, value in values.items():
        texts = ranks.gather_texts(value)
        for rank, text in enumerate(texts):
            if text != texts[0]:
                raise ValueError(
                    f"{name}: rank {rank} and rank 0 differ; all ranks must be started with the same "
                    "options, and see the same files"
                )


def checksum(params: Params) -> str:
    """Return a short text that is another one if any bit of the parameters is.

    Examples
    --------
    >>> import numpy as np
    >>> checksum({"weight": np.zeros(3)})
    'a3c1ca20'
    """
    sum_so_far = 0
    for name in sorted(params):
        sum_so_far = zlib.crc32(np.ascontiguousarray(to_numpy(params[name])).data, sum_so_far)
    return f"{sum_so_far:08x}"
