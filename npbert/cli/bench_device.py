"""``npbert bench kernels`` on a device: what is checked and timed there, as tables or as JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final, NamedTuple

from npbert.cli.console import Cell, Column, Styled, heading, say, table
from npbert.cli.errors import FAILED, OK
from npbert.cuda.benchmark import (
    SIZES,
    Clocks,
    Comparison,
    Machine,
    Peak,
    Result,
    Stopwatch,
    benchmark_kernels,
    describe_machine,
    find_peak,
    read_clocks,
)
from npbert.cuda.device import require_device

COLUMNS: Final = (
    Column("function"),
    Column("variant"),
    Column("error", "right"),
    Column("allowed", "right"),
    Column("µs", "right"),
    Column("p10 to p90", "right"),
    Column("GB/s", "right"),
    Column("TFLOP/s", "right"),
    Column("of roofline", "right"),
    Column("unfused µs", "right"),
    Column("speed-up", "right"),
)
METHOD: Final = """\
Error: the largest, against NumPy in float64. Allowed: twice that of the unfused op (npbert.ops on CuPy), and
4 u of the largest element. What is wrong is not timed. Times: medians on the device, after its L2 cache was
overwritten. GB/s, TFLOP/s: what has to be moved and computed at least. Roofline: a modelled bound. float16
GELU has no unfused op; float32's is timed, with the conversions."""


class Setting(NamedTuple):
    """What a benchmark runs on, and how."""

    cupy: Any
    machine: Machine
    peak: Peak
    clocks: Clocks  # before the first kernel
    stopwatch: Stopwatch


def run_on_device(functions: Sequence[str], repeats: int, as_json: bool) -> int:
    """Check and time kernels on CuPy's current device, and print what is found.

    Parameters
    ----------
    functions : sequence of str
        Some of `npbert.cuda.benchmark.FUNCTIONS`.
    repeats : int
        Timed runs of each function.
    as_json : bool

    Returns
    -------
    int
        The exit code: 1 if a kernel is wrong or could not be run.

    Raises
    ------
    DeviceError
        Without CuPy, or without a device.
    """
    cupy = require_device()
    setting = Setting(
        cupy, describe_machine(cupy), find_peak(cupy), read_clocks(cupy), Stopwatch(cupy, repeats)
    )
    results = benchmark_kernels(cupy, setting.stopwatch, setting.peak, SIZES, functions=functions)
    if as_json:
        found = list(results)
        print(json.dumps(_report(setting, found), indent=2))
    else:
        _say_setting(setting)
        found = list(_shown(results))
    return FAILED if any(result.failure is not None for result in found) else OK


# --- for people -----------------------------------------------------------------------------------------


def _say_setting(setting: Setting) -> None:
    machine, clocks = setting.machine, setting.clocks
    say(
        f"{machine.device}, compute capability {machine.compute_capability}, "
        f"{machine.multiprocessors} multiprocessors, {machine.memory_bytes / 2**30:.0f} GiB",
        "strong",
    )
    say(
        f"CUDA {machine.cuda_runtime} (driver: {machine.cuda_driver}), NVRTC {machine.nvrtc}, "
        f"CuPy {machine.cupy}, npbert {machine.npbert}"
    )
    say(f"At the start: {_clocks_in_words(clocks)}")
    say(f"Roofline: {setting.peak.source}")


def _shown(results: Iterable[Result]) -> Iterator[Result]:
    """Print a table for each size and dtype, when all of it is known, and pass the results on."""
    for (size, dtype), group in groupby(results, key=lambda r: (r.size, r.variant.partition(",")[0])):
        found = list(group)
        heading(f"{size}, {dtype}")
        table(COLUMNS, [_row(result) for result in found])
        clocks = next((result.clocks for result in reversed(found) if result.clocks is not None), None)
        if clocks is not None and clocks.values is not None:
            say(f"Right after the last one: {_clocks_in_words(clocks)}", "dim")
        for result in found:
            for what, why in (("", result.failure), (" unfused", result.unfused_failure)):
                if why is not None:
                    say(f"{result.function} ({result.variant}){what}: {why}", "bad")
        yield from found
    say()
    say(METHOD, "dim")


def _clocks_in_words(clocks: Clocks) -> str:
    if clocks.values is None:
        return f"{clocks.missing}"
    return ", ".join(f"{name} {value}" for name, value in clocks.values.items())


def _row(result: Result) -> list[Cell]:
    worst = max(result.comparisons, key=_excess, default=None)
    error = Styled("failed", "bad") if worst is None else Styled(f"{worst.error:.1e}", _style(worst))
    timing, unfused = result.timing, result.unfused
    return [
        result.function,
        result.variant,
        error,
        "" if worst is None else f"{worst.allowed:.1e}",
        "not timed" if timing is None else f"{timing.median * 1e6:.1f}",
        "" if timing is None else f"{timing.p10 * 1e6:.1f} to {timing.p90 * 1e6:.1f}",
        _number(result.bytes_per_second, 1e9, "{:.0f}"),
        _number(result.flops_per_second, 1e12, "{:.1f}"),
        _number(result.share_of_roofline, 0.01, "{:.0f} %"),
        "" if unfused is None else f"{unfused.median * 1e6:.1f}",
        _number(result.speed_up, 1, "{:.1f} x"),
    ]


def _excess(comparison: Comparison) -> float:
    """Order comparisons by how much of what is allowed they take; a NaN comes last."""
    return comparison.error / comparison.allowed if comparison.error >= 0 else float("inf")


def _style(comparison: Comparison) -> Any:
    return "good" if comparison.is_right else "bad"


def _number(value: float | None, unit: float, form: str) -> str:
    return "" if value is None else form.format(value / unit)


# --- for programs ---------------------------------------------------------------------------------------


def _report(setting: Setting, results: list[Result]) -> dict[str, Any]:
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": setting.machine._asdict(),
        "clocks": _clocks(setting.clocks),
        "roofline": {
            "source": setting.peak.source,
            "device": None if setting.peak.device is None else setting.peak.device._asdict(),
        },
        "method": {
            "text": METHOD,
            "repeats": setting.stopwatch.repeats,
            "warm_ups": setting.stopwatch.warm_ups,
            "flush_bytes": setting.stopwatch.flush_bytes,
            "unit_of_time": "second",
            "time_of_nothing": setting.stopwatch.overhead,
        },
        "results": [_result(result) for result in results],
    }


def _result(result: Result) -> dict[str, Any]:
    # JSON has no NaN.
    return {
        "size": result.size,
        "function": result.function,
        "variant": result.variant,
        "work": result.work._asdict(),
        "comparisons": [
            {
                name: value if not isinstance(value, float) or abs(value) < float("inf") else str(value)
                for name, value in (*found._asdict().items(), ("is_right", found.is_right))
            }
            for found in result.comparisons
        ],
        "failure": result.failure,
        "timing": None if result.timing is None else result.timing._asdict(),
        "unfused_timing": None if result.unfused is None else result.unfused._asdict(),
        "unfused_failure": result.unfused_failure,
        "modelled_bound": None if result.bound is None else result.bound._asdict(),
        "bytes_per_second": result.bytes_per_second,
        "flops_per_second": result.flops_per_second,
        "share_of_roofline": result.share_of_roofline,
        "speed_up": result.speed_up,
        "clocks": None if result.clocks is None else _clocks(result.clocks),
    }


def _clocks(clocks: Clocks) -> dict[str, str]:
    return {"missing": f"{clocks.missing}"} if clocks.values is None else clocks.values
