"""``npbert bench``: one command for each benchmark. Here: which there are, and ``npbert bench kernels``."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from npbert.cli import bench_cpu
from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.errors import UsageError

DESCRIPTION = """\
Measure npbert: on a CPU against its peers and against the matrix products
alone, on a CUDA device against the unfused ops and the roofline."""

EXAMPLES = """\
npbert bench inference
npbert bench kernels --static --arch sm_90"""

KERNELS_DESCRIPTION = """\
On a machine with a CUDA device and CuPy: check each kernel against NumPy, then
time it against the unfused op and against the roofline.

With --static, anywhere: compile each kernel for real architectures and show
registers, stack, spills, shared memory, occupancy, and the width of loads and
stores; the modelled bound on each op's time, which is not a measurement; and,
from a run on the emulator, how the addresses of a warp fall together. That
needs NVIDIA's compiler from PyPI, pip install "npbert[cuda-static]", but no
GPU and no driver; for the last part a C++ compiler."""

KERNELS_EXAMPLES = """\
npbert bench kernels
npbert bench kernels --static --arch sm_80 --arch sm_90
npbert bench kernels --static --kernel "layernorm*" --json"""

BENCHMARKS = (*bench_cpu.BENCHMARKS, "kernels")

DEFAULT_REPEATS = 100


def add_parser(commands: Any) -> None:
    """Declare the command, and those under it."""
    parser = add_command(
        commands,
        "bench",
        _no_benchmark,
        summary="measure npbert against its peers, or its CUDA kernels",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    benchmarks = parser.add_subparsers(
        title="benchmarks", metavar="BENCHMARK", dest="benchmark", parser_class=type(parser)
    )
    bench_cpu.add_parsers(benchmarks)
    _add_kernels(benchmarks)


def _no_benchmark(arguments: argparse.Namespace) -> int:
    raise UsageError(f"no benchmark; give one of {', '.join(BENCHMARKS)}; npbert bench --help explains them")


def _add_kernels(benchmarks: Any) -> None:
    parser = add_command(
        benchmarks,
        "kernels",
        run_kernels,
        summary="the CUDA kernels: measured on a device, or what is known of them without one",
        description=KERNELS_DESCRIPTION,
        examples=KERNELS_EXAMPLES,
    )
    parser.add_argument("--static", action="store_true", help="without a GPU: compile, model, emulate")
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        action="append",
        help="with --static: only this architecture, such as sm_80 (may be repeated; has wildcards, too)",
    )
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        action="append",
        help='only these kernels, without --static only these ops; * and ? are wildcards: "*gelu*" (may be '
        "repeated)",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        help=f"without --static: timed runs of each function (default: {DEFAULT_REPEATS})",
    )
    add_json(parser)


def run_kernels(arguments: argparse.Namespace) -> int:
    """Show what is known without a device, or measure on one."""
    if arguments.static:
        _refuse(arguments, ("repeats",), "goes without --static")
        return _static(arguments)
    _refuse(arguments, ("arch",), "goes with --static")
    return _on_device(arguments)


def _static(arguments: argparse.Namespace) -> int:
    from npbert.cli.bench_static import run_static
    from npbert.cuda.facts.architectures import ARCHITECTURES
    from npbert.cuda.facts.report import kernel_names

    architectures = selected(list(ARCHITECTURES), arguments.arch, "--arch")
    kernels = selected(kernel_names(), arguments.kernel, "--kernel")
    return run_static(kernels, [ARCHITECTURES[name] for name in architectures], arguments.json)


def _on_device(arguments: argparse.Namespace) -> int:
    from npbert.cli.bench_device import run_on_device
    from npbert.cuda.benchmark import FUNCTIONS

    functions = selected(list(FUNCTIONS), arguments.kernel, "--kernel")
    return run_on_device(functions, arguments.repeats or DEFAULT_REPEATS, arguments.json)


def _refuse(arguments: argparse.Namespace, options: Sequence[str], why: str) -> None:
    for option in options:
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option} {why}")


def selected(names: Sequence[str], patterns: Sequence[str] | None, option: str) -> list[str]:
    """Return the names that match one of some patterns; all, if there are none.

    Raises
    ------
    UsageError
        If a pattern matches nothing.
    """
    if patterns is None:
        return list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"{option} {pattern!r} matches none of {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
