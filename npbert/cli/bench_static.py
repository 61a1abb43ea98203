"""``npbert bench kernels --static``: compiled, modelled and emulated facts, as tables or as JSON."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from npbert.cli.console import Cell, Column, Styled, heading, say, table
from npbert.cli.errors import OK
from npbert.cuda.facts.architectures import Architecture
from npbert.cuda.facts.collect import KernelFacts
from npbert.cuda.facts.devices import DEVICES
from npbert.cuda.facts.report import ProblemBounds, StaticReport, static_report
from npbert.cuda.facts.traces import Requests
from npbert.cuda.facts.traffic import KernelTraffic, ProblemTraffic
from npbert.progress import progress_bar

MODELLED: Final = "modelled bound, not measured"
EMULATED: Final = "emulated, not measured"
WORTH_SHOWING: Final = 1.005  # times the least; below, it is 1.00

KERNEL_COLUMNS: Final = (
    Column("kernel"),
    Column("for"),
    Column("threads", "right"),
    Column("registers", "right"),
    Column("stack", "right"),
    Column("spills", "right"),
    Column("shared", "right"),
    Column("blocks", "right"),
    Column("occupancy", "right"),
    Column("limited by"),
    Column("16-byte loads", "right"),
    Column("16-byte stores", "right"),
    Column("HMMA", "right"),
)
KERNEL_NOTES: Final = """\
Stack, spills (stored + loaded) and shared memory in bytes. Blocks resident on a multiprocessor, and the share
of its warps that they fill. Instructions that load 16 bytes a thread from global memory, of all that load.
HMMA: tensor-core instructions in the main loop = columns of a warp's scores that they make up."""

ROOFLINE_COLUMNS: Final = (
    Column("op"),
    Column("for"),
    Column("sizes"),
    Column("arithmetic"),
    Column("GFLOP", "right"),
    Column("MB", "right"),
    Column("kernels'", "right"),
    *(Column(f"{device.name} µs", "right") for device in DEVICES),
)
ROOFLINE_NOTES: Final = """\
MB: inputs and outputs, once. kernels': the arrays of all its kernels, once each, over that. The bound is
GFLOP over the device's peak in that arithmetic, or MB over its bandwidth (m), whichever is more. Figures:"""

TRAFFIC_COLUMNS: Final = (
    Column("kernel"),
    Column("for"),
    Column("loads", "right"),
    Column("sectors", "right"),
    Column("over least", "right"),
    Column("stores", "right"),
    Column("sectors", "right"),
    Column("over least", "right"),
    Column("shared", "right"),
    Column("turns", "right"),
    Column("over least", "right"),
    Column("tensor FLOP", "right"),
    Column("most in vain at"),
)
TRAFFIC_NOTES: Final = """\
Requests of a warp; sectors of 32 bytes, or turns of shared memory's banks, that one of them takes; that over
what would do for the same bytes. Tensor FLOP: computed over what the formulas need."""

BYTES_COLUMNS: Final = (
    Column("op"),
    Column("for"),
    Column("sizes"),
    Column("arithmetic"),
    Column("kB at least", "right"),
    Column("asked for", "right"),
)
BYTES_NOTES: Final = """\
Asked for: all sectors that warps ask of global memory, before any cache, over inputs and outputs once."""


def run_static(kernels: Sequence[str], architectures: Sequence[Architecture], as_json: bool) -> int:
    """Find out what can be known without a device, and print it.

    Parameters
    ----------
    kernels : sequence of str
        Names of kernels.
    architectures : sequence of Architecture
    as_json : bool

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    ToolchainError
        If NVIDIA's compiler is not installed.
    """
    report = static_report(kernels, architectures, progress_bar)
    if as_json:
        print(json.dumps(as_dict(report), indent=2))
        return OK
    _show_kernels(report)
    _show_rooflines(report)
    _show_traffic(report)
    return OK


def as_dict(report: StaticReport) -> dict[str, Any]:
    """Return a report as what JSON can hold."""
    return {
        "compiler": report.compiler,
        "kernels": [facts._asdict() for facts in report.kernels],
        "rooflines": {
            "what": MODELLED,
            "devices": [device._asdict() for device in DEVICES],
            "ops": [_roofline_dict(one) for one in report.rooflines],
        },
        "traffic": {
            "what": EMULATED,
            "missing": report.no_traffic or None,
            "ops": [_traffic_dict(one) for one in report.traffic],
        },
    }


def _show_kernels(report: StaticReport) -> None:
    by_architecture = sorted(report.kernels, key=lambda facts: int(facts.architecture.removeprefix("sm_")))
    for name, group in groupby(by_architecture, key=lambda facts: facts.architecture):
        heading(f"{name}: compiled by NVRTC {report.compiler}, nothing was run")
        table(KERNEL_COLUMNS, [_kernel_row(facts) for facts in group])
    say()
    say(KERNEL_NOTES, "dim")
    spilling = [facts for facts in report.kernels if facts.stack_bytes or facts.stack_accesses]
    if spilling:
        say(f"{len(spilling)} of {len(report.kernels)} kernels use the stack.", "bad")
    else:
        say(f"No stack and no spills in {len(report.kernels)} compiled kernels.", "good")


def _kernel_row(facts: KernelFacts) -> list[Cell]:
    spills = f"{facts.spill_store_bytes} + {facts.spill_load_bytes}"
    matrix = "" if facts.matrix_columns is None else f"{facts.matrix_products} = {facts.matrix_columns:g}"
    return [
        facts.kernel,
        facts.variant,
        str(facts.threads),
        str(facts.registers),
        Styled(str(facts.stack_bytes), "bad") if facts.stack_bytes else "0",
        Styled(spills, "bad") if facts.spill_store_bytes or facts.spill_load_bytes else "0",
        str(facts.shared_bytes),
        str(facts.blocks),
        f"{facts.occupancy:.0%}",
        facts.limited_by,
        f"{facts.wide_loads} of {facts.loads}",
        f"{facts.wide_stores} of {facts.stores}",
        matrix,
    ]


def _show_rooflines(report: StaticReport) -> None:
    heading(f"Roofline: {MODELLED}")
    table(ROOFLINE_COLUMNS, [_roofline_row(one) for one in report.rooflines])
    say()
    say(ROOFLINE_NOTES, "dim")
    for device in DEVICES:
        say(f"  {device.name}: {device.source}", "dim")


def _roofline_row(one: ProblemBounds) -> list[Cell]:
    problem = one.problem
    kernels = f"{problem.launched_bytes / problem.minimum_bytes:.2f}" if problem.launches else ""
    return [
        problem.op,
        problem.variant,
        problem.shape,
        problem.unit,
        f"{problem.flops / 1e9:.1f}",
        f"{problem.minimum_bytes / 1e6:.0f}",
        kernels,
        *(
            f"{bound.seconds * 1e6:.0f}{' m' if bound.limited_by == 'memory' else '  '}"
            for _, bound in one.bounds
        ),
    ]


def _show_traffic(report: StaticReport) -> None:
    heading(f"Addresses: {EMULATED}")
    if report.no_traffic:
        say(f"Left out: {report.no_traffic}")
        return
    rows = [_traffic_row(kernel) for one in report.traffic for kernel in one.kernels]
    table(TRAFFIC_COLUMNS, list(dict.fromkeys(map(tuple, rows))))  # some ops launch the same kernels
    say()
    say(TRAFFIC_NOTES, "dim")
    heading(f"Bytes: {EMULATED}")
    table(BYTES_COLUMNS, [_bytes_row(one) for one in report.traffic])
    say()
    say(BYTES_NOTES, "dim")


def _traffic_row(kernel: KernelTraffic) -> list[Cell]:
    return [
        kernel.kernel,
        kernel.variant,
        *_requests(kernel.loads),
        *_requests(kernel.stores),
        *_requests(kernel.shared),
        "" if kernel.matrix_excess is None else f"{kernel.matrix_excess:.2f}",
        " ".join(filter(None, (kernel.worst_global, kernel.worst_shared))),
    ]


def _requests(requests: Requests) -> list[Cell]:
    if requests.requests == 0:
        return ["0", "", ""]
    excess = f"{requests.excess:.2f}"
    return [
        str(requests.requests),
        f"{requests.units / requests.requests:.1f}",
        Styled(excess, "bad") if requests.excess > WORTH_SHOWING else excess,
    ]


def _bytes_row(one: ProblemTraffic) -> list[Cell]:
    least = one.problem.minimum_bytes
    return [
        one.problem.op,
        one.problem.variant,
        one.problem.shape,
        one.problem.unit,
        f"{least / 1e3:.0f}",
        f"{one.global_bytes / least:.2f}",
    ]


def _roofline_dict(one: ProblemBounds) -> dict[str, Any]:
    bounds = {device.name: bound._asdict() for device, bound in one.bounds}
    return {**_problem_dict(one.problem), "launched_bytes": one.problem.launched_bytes, "bounds": bounds}


def _traffic_dict(one: ProblemTraffic) -> dict[str, Any]:
    kernels = [
        {
            **kernel._asdict(),
            **{name: getattr(kernel, name)._asdict() for name in ("loads", "stores", "shared")},
        }
        for kernel in one.kernels
    ]
    return {**_problem_dict(one.problem), "requested_bytes": one.global_bytes, "kernels": kernels}


def _problem_dict(problem: Any) -> dict[str, Any]:
    names = ("op", "variant", "shape", "unit", "flops", "minimum_bytes")
    return {name: getattr(problem, name) for name in names}
