"""The benchmark of kernels on a stand-in for a device: what it refuses to time, computes and reports.

The stand-in runs kernels emulated and takes the time of the host: no figure in here says anything of a GPU.
"""

import json
import os
import re
import stat
import sys
import time
import types
from datetime import datetime

import numpy as np
import pytest

from npbert import cli, cuda, ops
from npbert.cli import bench_device
from npbert.cuda import runtime
from npbert.cuda.benchmark import (
    DTYPES,
    FUNCTIONS,
    SIZES,
    Stopwatch,
    benchmark_kernels,
    describe_machine,
    find_peak,
    read_clocks,
)
from npbert.cuda.benchmark.cases import cases
from npbert.cuda.benchmark.machine import NAMES, QUERIES
from npbert.cuda.facts.devices import DEVICES
from npbert.cuda.facts.problems import Size
from tests.cuda import fake_cupy

TINY = Size(texts=2, tokens=9, heads=2, width=32, feed_forward=40, words=50, classes=37, labelled=15)
REPEATS = 2
LAYERNORM = ("residual_layernorm_forward", "residual_layernorm_backward")


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, and no kernel compiled for another one."""
    runtime._compile_for_cupy.cache_clear()
    yield fake_cupy.install(monkeypatch)
    runtime._compile_for_cupy.cache_clear()


def run(cupy, functions, dtype="float32"):
    """Results by function and variant."""
    found = benchmark_kernels(
        cupy, Stopwatch(cupy, REPEATS), find_peak(cupy), {"tiny": TINY}, [dtype], functions
    )
    return {(result.function, result.variant): result for result in found}


# --- what is checked and timed --------------------------------------------------------------------------


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_is_right_and_timed(cupy, dtype):
    found = run(cupy, FUNCTIONS, dtype)
    assert {function for function, _ in found} == set(FUNCTIONS)
    assert (("attention_forward", "float16, tensor cores") in found) == (dtype == "float16")
    for (function, variant), result in found.items():
        what = f"{function}, {variant}"
        assert (result.failure, result.unfused_failure) == (None, None), what
        names = {comparison.name.split()[0] for comparison in result.comparisons}
        expected = {"forward": {"value"}, "backward": {"gradient"}, "place": {"value", "gradient"}}
        assert names == expected[function.rpartition("_")[2]], what
        for comparison in result.comparisons:
            assert 0 < comparison.error <= comparison.allowed, what
            assert comparison.unfused_error > 0, what
        timing = result.timing
        assert timing.repeats == REPEATS
        assert 0 < timing.p10 <= timing.median <= timing.p90
        assert result.speed_up == result.unfused.median / timing.median
        assert result.share_of_roofline == result.bound.seconds / timing.median
        assert result.bytes_per_second == result.work.minimum_bytes / timing.median
        assert result.flops_per_second == result.work.flops / timing.median


@pytest.mark.usefixtures("emulated")
def test_an_old_device_is_not_asked_for_tensor_cores(cupy, monkeypatch):
    monkeypatch.setattr(fake_cupy.Device, "compute_capability", "75")
    found = run(cupy, ["attention_forward"], "float16")
    assert list(found) == [("attention_forward", "float16, scalar")]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * 1.01, "wrong: value is off by 0.0[0-9]*, allowed is"),
        (lambda y: y + np.nan, "wrong: value is off by nan, allowed is"),
    ],
)
def test_a_wrong_value_is_not_timed(cupy, monkeypatch, change, message):
    right = cuda.residual_layernorm_forward

    def wrong(*arguments):
        y, cache = right(*arguments)
        return change(y), cache

    monkeypatch.setattr(cuda, "residual_layernorm_forward", wrong)
    forward, backward = run(cupy, LAYERNORM).values()
    assert re.match(message, forward.failure)
    assert (forward.timing, forward.unfused, forward.speed_up) == (None, None, None)
    assert backward.failure is None
    assert backward.timing is not None


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_wrong_gradient_is_not_timed(cupy, monkeypatch, slot):
    right = cuda.residual_layernorm_backward

    def wrong(*arguments):
        gradients = list(right(*arguments))
        gradients[slot] = gradients[slot] + 0.01
        return tuple(gradients)

    monkeypatch.setattr(cuda, "residual_layernorm_backward", wrong)
    forward, backward = run(cupy, LAYERNORM).values()
    assert forward.timing is not None
    assert backward.timing is None
    assert backward.failure.startswith(f"wrong: gradient {(0, 2, 3)[slot]} is off by 0.01, allowed is")


@pytest.mark.usefixtures("emulated")
def test_a_wrong_row_in_the_last_part_is_seen(cupy, monkeypatch):
    """The oracle takes a few texts at a time; all of them are compared."""
    right = cuda.embedding_forward

    def wrong(*arguments):
        y, cache = right(*arguments)
        y[-1, -1, -1] = 9.0
        return y, cache

    monkeypatch.setattr(cuda, "embedding_forward", wrong)
    (result,) = run(cupy, ["embedding_forward"]).values()
    assert result.failure.startswith("wrong: value is off by ")


@pytest.mark.usefixtures("emulated")
def test_what_cannot_be_run_is_reported(cupy, monkeypatch):
    def refused(*arguments):
        raise ValueError("layernorm_forward: x has rows\nthat no device holds")

    monkeypatch.setattr(cuda, "residual_layernorm_forward", refused)
    for result in run(cupy, LAYERNORM).values():
        assert result.failure == "ValueError: layernorm_forward: x has rows that no device holds"
        assert (result.comparisons, result.timing, result.unfused) == ([], None, None)


@pytest.mark.usefixtures("emulated")
def test_what_cannot_be_compared_is_not_timed(cupy, monkeypatch):
    def out_of_memory(*arguments):
        raise MemoryError("8 GB")

    monkeypatch.setattr(ops, "layernorm_backward", out_of_memory)
    for result in run(cupy, LAYERNORM).values():
        assert result.failure == ("not checked, since the unfused op could not be run: MemoryError: 8 GB")
        assert result.timing is None


def test_the_sizes_are_those_of_the_models():
    wanted = ["bias_gelu_forward", "attention_backward"]
    shapes = {
        work.shape for case in cases(SIZES["MiniLM, T=128"], "float16", wanted) for work in case.work.values()
    }
    assert shapes == {"B=32 N=12 T=128 H=32", "R=4096 D=1536"}
    assert {(s.texts, s.words, s.classes) for s in SIZES.values()} == {(32, 30522, 30522)}
    assert {(s.tokens, s.heads, s.width, s.feed_forward) for s in SIZES.values()} == {
        (128, 12, 384, 1536),
        (128, 12, 768, 3072),
        (512, 12, 768, 3072),
    }


# --- time -----------------------------------------------------------------------------------------------


def test_the_cache_is_overwritten_before_each_run(cupy, monkeypatch):
    order = []
    fill = fake_cupy.DeviceArray.__getattr__

    def noted(array, name):
        if name == "fill":
            order.append("flush")
            assert array.nbytes > fake_cupy.ATTRIBUTES["L2CacheSize"]
        return fill(array, name)

    monkeypatch.setattr(fake_cupy.DeviceArray, "__getattr__", noted)
    stopwatch = Stopwatch(cupy, repeats=3)
    order.clear()
    timing = stopwatch.time(lambda: order.append("call"))
    calls = [number for number, what in enumerate(order) if what == "call"]
    assert all(order[number - 1] == "flush" for number in calls)
    assert len(calls) > timing.repeats == 3
    assert stopwatch.flush_bytes > fake_cupy.ATTRIBUTES["L2CacheSize"]


def test_only_the_call_is_timed(cupy):
    """Not the flush, however long it takes; and it takes longer than the host needs for the launches."""
    stopwatch = Stopwatch(cupy, repeats=4)
    stopwatch._flush_seconds = 0.001
    timing = stopwatch.time(lambda: time.sleep(0.003))
    assert 0.003 <= timing.p10 <= timing.median <= timing.p90
    assert timing.host_median >= 0.003
    assert timing.flushes >= 4

    stopwatch._flush = lambda times: time.sleep(0.02)
    assert stopwatch.time(lambda: None).median < 0.01


# --- what it ran on -------------------------------------------------------------------------------------


def put_nvidia_smi(folder, monkeypatch, script):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_clocks_and_driver_are_recorded(cupy, monkeypatch, tmp_path):
    answer = ", ".join(f"value {number}" for number in range(len(QUERIES)))
    put_nvidia_smi(tmp_path, monkeypatch, f'echo "$@" >"{tmp_path}/arguments"; echo "{answer}"')
    clocks = read_clocks(cupy)
    assert clocks.missing is None
    assert clocks.values == {query: f"value {number}" for number, query in enumerate(QUERIES)}
    assert {"driver_version", "clocks.sm", "clocks.mem"} <= set(clocks.values)
    assert describe_machine(cupy).driver == clocks.values["driver_version"]
    arguments = (tmp_path / "arguments").read_text()
    assert "--id=0000:00:00.0" in arguments
    assert "--query-gpu=driver_version,pstate,clocks.sm" in arguments


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Field \"pstate\" is not valid' >&2; exit 2", 'does not answer: Field "pstate" is not valid'),
        ("echo 550.1, P0", "does not answer: 550.1, P0"),
    ],
)
def test_clocks_that_are_not_known(cupy, monkeypatch, tmp_path, script, message):
    put_nvidia_smi(tmp_path, monkeypatch, script)
    clocks = read_clocks(cupy)
    assert clocks.values is None
    assert message in clocks.missing


def test_clocks_without_nvidia_smi(cupy, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_clocks(cupy).missing.startswith("nvidia-smi is not on the PATH")
    assert describe_machine(cupy).driver is None


class Gpu(types.SimpleNamespace):
    """What CuPy says of a device."""

    def cupy(self):
        device = types.SimpleNamespace(id=0, compute_capability=self.capability, attributes=self.attributes)
        return types.SimpleNamespace(
            cuda=types.SimpleNamespace(
                Device=lambda: device,
                runtime=types.SimpleNamespace(getDeviceProperties=lambda id: {"name": self.name.encode()}),
            )
        )


def gpu(name, capability, multiprocessors, clock_mhz, memory_mhz, bus_bits):
    attributes = {
        "MultiProcessorCount": multiprocessors,
        "ClockRate": clock_mhz * 1000,
        "MemoryClockRate": memory_mhz * 1000,
        "GlobalMemoryBusWidth": bus_bits,
    }
    return Gpu(name=name, capability=capability, attributes=attributes)


def test_the_peaks_of_a_known_device_are_its_data_sheets():
    by_name = {device.name: device for device in DEVICES}
    assert set(NAMES.values()) == set(by_name)
    for name, short in NAMES.items():
        peak = find_peak(gpu(name, "80", 1, 1, 1, 1).cupy())
        assert peak.device is by_name[short]
        assert peak.source == f"data sheet: {by_name[short].source}"


# Boost and memory clocks as these devices report them. Data sheets round, and count tensor cores at a lower
# clock (H100); of the 4090, whose tensor cores sum up float32 at half rate, the computed bound is the double.
@pytest.mark.parametrize(
    ("short", "hardware", "tensor"),
    [
        ("T4", ("75", 40, 1590, 5001, 256), 1),
        ("A100", ("80", 108, 1410, 1593, 5120), 1),
        ("RTX 4090", ("89", 128, 2520, 10501, 384), 2),
        ("H100", ("90", 132, 1980, 2619, 5120), 1),
    ],
)
def test_the_peaks_of_another_device_are_computed(short, hardware, tensor):
    known = next(device for device in DEVICES if device.name == short)
    peak = find_peak(gpu("a relative", *hardware).cupy())
    assert peak.source.startswith(
        "computed from clock rates as the driver reports them; no data sheet of a rel"
    )
    assert peak.device.float32 == pytest.approx(known.float32, rel=0.02)
    assert peak.device.float64 == pytest.approx(known.float64, rel=0.02)
    assert peak.device.bandwidth == pytest.approx(known.bandwidth, rel=0.01)
    assert peak.device.tensor == pytest.approx(tensor * known.tensor, rel=0.09)
    assert peak.device.architecture == known.architecture


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (gpu("New", "130", 100, 2000, 2000, 512), "compute capability 13.0 is not in the table of npbert"),
        (gpu("Shy", "90", 100, 0, 2000, 512), "the driver does not report ClockRate"),
    ],
)
def test_peaks_that_are_not_known(device, why):
    peak = find_peak(device.cupy())
    assert peak.device is None
    assert peak.source == f"unknown: no data sheet of {device.name} in npbert, and {why}"


@pytest.mark.usefixtures("emulated")
def test_without_a_roofline_there_is_no_share_of_it(cupy):
    unknown = find_peak(gpu("New", "130", 100, 2000, 2000, 512).cupy())
    (result,) = benchmark_kernels(
        cupy, Stopwatch(cupy, REPEATS), unknown, {"tiny": TINY}, ["float32"], ["embedding_forward"]
    )
    assert result.timing is not None
    assert (result.bound, result.share_of_roofline) == (None, None)


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """npbert bench kernels, at a size that an emulator takes."""
    monkeypatch.setattr(bench_device, "SIZES", {"tiny": TINY})

    def run_command(*options):
        code = cli.main(["bench", "kernels", "--repeats", "2", *options])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run_command


@pytest.mark.usefixtures("emulated")
def test_the_table(cupy, command):
    code, out, err = command("--kernel", "*layernorm*", "--kernel", "attention_forward")
    assert (code, err) == (0, "")
    assert out.startswith(f"{fake_cupy.NAME}, compute capability 9.0, 2 multiprocessors, 1 GiB\n")
    assert "CUDA 13.2 (driver: 13.0), NVRTC 13.0, CuPy 0 (stand-in)" in out
    assert "Roofline: computed from clock rates as the driver reports them" in out
    lines = [line.split() for line in out.splitlines()]
    functions = [line[0] for line in lines if line and line[0].endswith(("_forward", "_backward"))]
    assert functions == [*LAYERNORM, "attention_forward", *LAYERNORM, *(["attention_forward"] * 2)]
    assert "tiny, float32" in out
    assert "tiny, float16" in out
    assert "a modelled bound" in out


@pytest.mark.usefixtures("emulated")
def test_the_table_with_clocks(cupy, command, monkeypatch, tmp_path):
    put_nvidia_smi(tmp_path, monkeypatch, f"echo {', '.join(['7'] * len(QUERIES))}")
    code, out, _ = command("--kernel", "embedding_forward")
    assert code == 0
    assert "At the start: driver_version 7, pstate 7, clocks.sm 7" in out
    assert out.count("Right after the last one: driver_version 7, pstate 7, clocks.sm 7") == len(DTYPES)


@pytest.mark.usefixtures("emulated")
def test_json(cupy, command):
    code, out, err = command("--json", "--kernel", "bias_gelu_*")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert datetime.fromisoformat(report["finished"]).tzinfo is not None
    assert report["machine"]["device"] == fake_cupy.NAME
    assert report["machine"]["compute_capability"] == "9.0"
    assert set(report["clocks"]) in ({"missing"}, set(QUERIES))
    assert report["roofline"]["device"]["bandwidth"] == 16e9
    assert report["method"]["repeats"] == 2
    assert report["method"]["flush_bytes"] == 4 * fake_cupy.ATTRIBUTES["L2CacheSize"]
    assert len(report["results"]) == 8
    for result in report["results"]:
        assert result["function"].startswith("bias_gelu_")
        assert all(comparison["is_right"] for comparison in result["comparisons"])
        assert result["timing"]["median"] > 0
        assert result["modelled_bound"]["limited_by"] in ("compute", "memory")
        assert result["speed_up"] > 0


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_wrong_kernel_is_reported_and_the_exit_code_says_so(cupy, command, monkeypatch, options):
    right = cuda.embedding_forward

    def wrong(*arguments):
        y, cache = right(*arguments)
        return y + np.nan, cache

    monkeypatch.setattr(cuda, "embedding_forward", wrong)
    code, out, _ = command("--kernel", "embedding_forward", *options)
    assert code == 1
    assert "wrong: value is off by nan, allowed is" in out
    if options:
        (first, _) = json.loads(out)["results"]
        assert first["timing"] is None
        assert first["comparisons"][0]["error"] == "nan"
    else:
        assert "not timed" in out


def test_an_unknown_kernel(cupy, command):
    code, _, err = command("--kernel", "softmux*")
    assert code == 2
    assert "--kernel 'softmux*' matches none of embedding_forward, " in err


def test_without_cupy(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    code, out, err = command()
    assert (code, out) == (1, "")
    assert err.startswith('npbert bench: error: CuPy is not installed: pip install "npbert[cuda13]"')
    assert err.count("\n") == 1


@pytest.mark.parametrize("settings", [{"driver": 0}, {"devices": 0}])
def test_without_a_device(command, monkeypatch, settings):
    fake_cupy.install(monkeypatch, **settings)
    code, out, err = command()
    assert (code, out) == (1, "")
    assert "CuPy 0 (stand-in) is installed, but there is no CUDA device: " in err
    assert err.count("\n") == 1
