"""How long a call keeps the device busy, each time with nothing of its arrays in the device's L2 cache."""

import math
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

WARM_UPS: Final = 5  # runs of each call that are not timed
MOST_SECONDS: Final = 5.0  # that one call is repeated for
TRIAL_REPEATS: Final = 5


class Timing(NamedTuple):
    """Seconds that a call takes.

    Attributes
    ----------
    repeats : int
    median, p10, p90 : float
        On the device, from the first kernel to the end of the last.
    host_median : float
        That Python needs to launch them.
    flushes : int
        How often the cache was overwritten before each run; see `Stopwatch`.
    """

    repeats: int
    median: float
    p10: float
    p90: float
    host_median: float
    flushes: int


class Stopwatch:
    """Times calls on the current device.

    Before each call a buffer is written that is four times as large as the L2 cache. This is not waited for:
    the host launches the call's kernels while the device still writes, so that what Python needs for that
    does not count. Where a call takes Python longer, the buffer is written several times.

    Parameters
    ----------
    cupy : module
    repeats : int
        Timed runs of each call, unless they take longer than `MOST_SECONDS`.
    """

    def __init__(self, cupy: Any, repeats: int) -> None:
        self.repeats, self.warm_ups = repeats, WARM_UPS
        self._cupy = cupy
        l2_bytes = cupy.cuda.Device().attributes["L2CacheSize"]
        self._buffer = cupy.empty(max(4 * l2_bytes, 1), np.uint8)
        self._flush_seconds = self._run(lambda: self._flush(1), TRIAL_REPEATS, flushes=0).median
        self.overhead = self._run(lambda: None, TRIAL_REPEATS, flushes=1).median

    @property
    def flush_bytes(self) -> int:
        """How large the buffer is."""
        return int(self._buffer.nbytes)

    def time(self, call: Callable[[], Any]) -> Timing:
        """Call again and again.

        Parameters
        ----------
        call : callable
            Launches work on the current stream.

        Returns
        -------
        Timing
        """
        host_seconds = self._run(call, TRIAL_REPEATS, flushes=1).host_median
        flushes = 1 + math.ceil(host_seconds / max(self._flush_seconds, 1e-6))
        return self._run(call, self.repeats, flushes)

    def _run(self, call: Callable[[], Any], repeats: int, flushes: int) -> Timing:
        from cupyx.profiler import benchmark

        cuda = self._cupy.cuda
        events: list[tuple[Any, Any]] = []
        host: list[float] = []

        def run_once() -> None:
            start, end = cuda.Event(), cuda.Event()
            self._flush(flushes)
            start.record()
            begin = time.perf_counter()
            call()
            host.append(time.perf_counter() - begin)
            end.record()
            events.append((start, end))

        # It waits for the device after each run. Its own times include the flush.
        benchmark(run_once, n_repeat=repeats, n_warmup=WARM_UPS, max_duration=MOST_SECONDS)
        seconds = [cuda.get_elapsed_time(*pair) / 1000 for pair in events[WARM_UPS:]]
        p10, median, p90 = np.percentile(seconds, [10, 50, 90])
        return Timing(
            len(seconds), float(median), float(p10), float(p90), float(np.median(host[WARM_UPS:])), flushes
        )

    def _flush(self, times: int) -> None:
        for _ in range(times):
            self._buffer.fill(0)
