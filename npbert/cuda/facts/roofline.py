"""The roofline: no kernel is faster than its arithmetic, nor than its traffic with the memory.

A modelled bound, never a measured time: what a device does in practice is slower.

References
----------
S. Williams, A. Waterman and D. Patterson, Roofline: an insightful visual performance model for multicore
architectures. Communications of the ACM 52(4), 2009.
"""

from typing import Literal, NamedTuple

from npbert.cuda.facts.devices import Device, Unit


class Bound(NamedTuple):
    """The least time that a device can take, by its data sheet.

    Attributes
    ----------
    seconds : float
        The larger of the two that follow.
    compute_seconds : float
        What the arithmetic takes.
    memory_seconds : float
        What the traffic with the memory takes.
    limited_by : {"compute", "memory"}
        Which of them it is.
    """

    seconds: float
    compute_seconds: float
    memory_seconds: float
    limited_by: Literal["compute", "memory"]


def roofline(device: Device, unit: Unit, flops: float, nbytes: float) -> Bound:
    """Return the modelled bound of a computation.

    Parameters
    ----------
    device : Device
    unit : {"float64", "float32", "tensor"}
        What does the arithmetic.
    flops : float
        Floating-point operations; a multiplication and an addition are two.
    nbytes : float
        What has to be read and written at least.

    Returns
    -------
    Bound

    Examples
    --------
    >>> from npbert.cuda.facts.devices import DEVICES
    >>> bound = roofline(DEVICES[0], "float32", flops=8.1e9, nbytes=32e6)
    >>> bound.compute_seconds, bound.memory_seconds, bound.limited_by
    (0.001, 0.0001, 'compute')
    """
    peak = {"float64": device.float64, "float32": device.float32, "tensor": device.tensor}[unit]
    compute, memory = flops / peak, nbytes / device.bandwidth
    if compute >= memory:
        return Bound(compute, compute, memory, "compute")
    return Bound(memory, compute, memory, "memory")
