"""All that is known about kernels without a GPU, in one place: compiled, modelled, emulated."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from npbert.cuda import emulator
from npbert.cuda.facts.architectures import Architecture
from npbert.cuda.facts.collect import KernelFacts, collect, count_compilations
from npbert.cuda.facts.devices import DEVICES, Device
from npbert.cuda.facts.problems import Problem, problems
from npbert.cuda.facts.roofline import Bound, roofline
from npbert.cuda.facts.toolchain import require_toolchain
from npbert.cuda.facts.traffic import ProblemTraffic, collect_traffic, count_traces
from npbert.cuda.facts.variants import kernel_variants
from npbert.progress import Advance

ShowProgress = Callable[[str, int], AbstractContextManager[Advance]]


class ProblemBounds(NamedTuple):
    """How fast some devices could do one op at best, by their data sheets."""

    problem: Problem
    bounds: tuple[tuple[Device, Bound], ...]


class StaticReport(NamedTuple):
    """What was found.

    Attributes
    ----------
    compiler : str
        The version of the compiler.
    kernels : list of KernelFacts
        Of each kernel, for each architecture.
    rooflines : list of ProblemBounds
    traffic : list of ProblemTraffic
    no_traffic : str
        Why there is none: nothing can run kernels on the emulator.
    """

    compiler: str
    kernels: list[KernelFacts]
    rooflines: list[ProblemBounds]
    traffic: list[ProblemTraffic]
    no_traffic: str


def kernel_names() -> list[str]:
    """Return the names of all kernels that ops launch."""
    return list(dict.fromkeys(variant.kernel for variant in kernel_variants(problems())))


def static_report(
    kernels: Collection[str], architectures: Sequence[Architecture], show_progress: ShowProgress
) -> StaticReport:
    """Compile kernels, bound the time of their ops, and trace their addresses on the emulator.

    Parameters
    ----------
    kernels : collection of str
        Names of kernels.
    architectures : sequence of Architecture
    show_progress : callable
        Takes a description and a total; such as `npbert.progress.progress_bar`.

    Returns
    -------
    StaticReport

    Raises
    ------
    ToolchainError
        If a package that compiles or disassembles is missing.
    """
    compiler = require_toolchain()
    everything = list(problems())
    variants = [variant for variant in kernel_variants(everything) if variant.kernel in kernels]
    with show_progress("compiling kernels", count_compilations(variants, architectures)) as advance:
        facts = collect(variants, architectures, advance)
    rooflines = problem_bounds(everything, kernels)
    try:
        emulator.compiler()
    except emulator.EmulatorError as error:
        return StaticReport(compiler, facts, rooflines, [], str(error))
    with show_progress("tracing kernels", count_traces(kernels)) as advance:
        traffic = list(collect_traffic(kernels, advance))
    return StaticReport(compiler, facts, rooflines, traffic, "")


def problem_bounds(everything: Sequence[Problem], kernels: Collection[str]) -> list[ProblemBounds]:
    """Return the modelled bounds of the ops that launch some kernels, and of their unfused counterparts.

    Parameters
    ----------
    everything : sequence of Problem
    kernels : collection of str
        Names of kernels.

    Returns
    -------
    list of ProblemBounds
    """
    ops = {problem.op for problem in everything for launch in problem.launches if launch.kernel in kernels}
    return [_bounds(problem) for problem in everything if problem.op.partition(",")[0] in ops]


def _bounds(problem: Problem) -> ProblemBounds:
    return ProblemBounds(
        problem,
        tuple(
            (device, roofline(device, problem.unit, problem.flops, problem.minimum_bytes))
            for device in DEVICES
        ),
    )
