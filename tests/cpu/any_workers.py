"""What the number of workers may not change: any bit of any result."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from npbert.cpu.workers import workers
from tests.comparisons import assert_identical
from tests.op_contract import as_dtype


def assert_same_for_any_workers(forward: Callable, backward: Callable, args: Sequence, rng) -> None:
    """Run an op with 1, 2, 3 workers and again with 2, in both precisions; all results have the same bits.

    Parameters
    ----------
    forward, backward : the op of `npbert.cpu`
    args : sequence
        Arguments of ``forward``, of several blocks; floating-point arrays in float64.
    rng : numpy.random.Generator
        Draws the cotangent.
    """
    for dtype in (np.float64, np.float32):
        given = [as_dtype(dtype, arg) for arg in args]
        dy = rng.normal(size=np.shape(forward(*given)[0])).astype(dtype)
        expected = None
        for count in (1, 2, 3, 2):
            with workers(count):
                y, cache = forward(*given)
                found = backward(dy, cache)
            results = [y, *(found if isinstance(found, tuple) else (found,))]
            expected = expected or results
            for slot, (actual, reference) in enumerate(zip(results, expected, strict=True)):
                if reference is None:
                    assert actual is None
                else:
                    assert_identical(actual, reference, f"result {slot} in {dtype.__name__}, {count} workers")


def threads_that_call(monkeypatch, module, name: str, function: Callable[[], object]) -> set[int]:
    """Return which threads called a function of a module while ``function`` ran."""
    original = getattr(module, name)
    threads = set()

    def watched(*args, **options):
        threads.add(threading.get_ident())
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, watched)
        function()
    return threads
