"""Ctrl-C, SIGTERM and SIGUSR1 during training: the step is finished and saved, then the training ends.

SIGUSR1 is for schedulers, and for Open MPI: its ``mpirun`` only passes that one on. After Ctrl-C and SIGTERM
it ends all processes within a fraction of a second.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class StopRequest:
    """Whether somebody has asked to stop.

    Attributes
    ----------
    signal_number : int
        The signal that arrived; 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.signal_number = 0


@contextmanager
def listening_to_signals() -> Iterator[StopRequest]:
    """Note SIGINT, SIGTERM and SIGUSR1 in a ``with`` block, where they otherwise end the program at once.

    A second signal does what it always does. Outside of the main thread, where Python takes no signals,
    nothing is changed.

    Yields
    ------
    StopRequest
    """
    request = StopRequest()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        yield request
        return
    try:
        yield request
    finally:
        restore()
