"""``npbert bench kernels``."""

import json

import pytest

from npbert.cli.bench import selected
from npbert.cli.bench_static import KERNEL_COLUMNS, MODELLED, ROOFLINE_COLUMNS, as_dict
from npbert.cli.errors import UsageError
from npbert.cuda import emulator
from npbert.cuda.facts import toolchain as tools
from npbert.cuda.facts.report import static_report
from npbert.progress import progress_bar
from tests.cli.running import assert_fails, run

STATIC = ["bench", "kernels", "--static"]
# A kernel that compiles and runs fast.
SOME = ["--arch", "sm_80", "--kernel", "gelu_bias_gradient"]


@pytest.fixture(scope="module")
def report():
    """What is found out about one kernel, once for all tests; skip these where something is missing."""
    from npbert.cuda.facts.architectures import ARCHITECTURES

    try:
        tools.require_toolchain()
        emulator.compiler()
    except (tools.ToolchainError, emulator.EmulatorError) as error:
        pytest.skip(f"no CUDA compiler or no C++ compiler: {error}")
    return static_report(["gelu_bias_gradient"], [ARCHITECTURES["sm_80"]], progress_bar)


@pytest.fixture
def found(report, monkeypatch):
    """Let the command find this out, too; returns a function that changes it."""

    def change(**fields):
        changed = report._replace(**fields)
        monkeypatch.setattr("npbert.cli.bench_static.static_report", lambda *arguments: changed)

    change()
    return change


def test_selected():
    names = ["gelu_forward", "gelu_backward", "layernorm_forward"]
    assert selected(names, None, "--kernel") == names
    assert selected(names, ["*_forward"], "--kernel") == ["gelu_forward", "layernorm_forward"]
    assert selected(names, ["layer*", "gelu_b*"], "--kernel") == ["gelu_backward", "layernorm_forward"]
    with pytest.raises(UsageError, match=r"--kernel 'elu\*' matches none of gelu_forward, gelu_backward"):
        selected(names, ["elu*"], "--kernel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench"], ("kernels", "inference", "--help")),
        (["bench", "everything"], ("invalid choice", "kernels", "inference")),
        ([*STATIC, "--arch", "sm_70"], ("--arch 'sm_70'", "sm_75", "sm_120")),
        (
            [*STATIC, "--kernel", "conv*"],
            ("--kernel 'conv*'", "gelu_forward", "softmax_attention_mma_forward"),
        ),
        ([*STATIC, "--repeats", "3"], ("--repeats", "without --static")),
        (["bench", "kernels", "--arch", "sm_80"], ("--arch", "with --static")),
        (["bench", "kernels", "--repeats", "0"], ("--repeats", "at least 1")),
    ],
)
def test_bad_usage(capsys, arguments, words):
    assert_fails(capsys, arguments, 2, *words)


def test_without_the_compiler_it_says_what_to_install(capsys, monkeypatch):
    def missing(package, pattern):
        raise tools.ToolchainError(f"{package} is not installed; {tools.HOW_TO_INSTALL}")

    monkeypatch.setattr(tools, "installed_file", missing)
    assert_fails(capsys, [*STATIC, *SOME], 1, "nvidia-cuda-runtime", 'pip install "npbert[cuda-static]"')


def test_tables(capsys, found):
    code, output, error = run(capsys, *STATIC, *SOME)
    assert (code, error) == (0, "")
    assert "sm_80: compiled by NVRTC 13." in output
    header = next(line for line in output.splitlines() if line.startswith("kernel  "))
    assert all(column.name in header for column in KERNEL_COLUMNS)
    rows = [line.split() for line in output.splitlines() if line.startswith("gelu_bias_gradient ")]
    assert {row[1] for row in rows} == {"float64", "float32", "float16"}
    assert all(int(row[2]) == 256 and 0 < int(row[3]) < 256 for row in rows[:3])
    assert "No stack and no spills in 3 compiled kernels." in output
    assert f"Roofline: {MODELLED}" in output
    header = next(line for line in output.splitlines() if line.startswith("op  "))
    assert all(column.name in header for column in ROOFLINE_COLUMNS)
    assert "bias_gelu_backward" in header + output
    assert "layernorm" not in output
    assert "NVIDIA A100 data sheet" in output


def test_tables_of_addresses(capsys, found):
    _, output, _ = run(capsys, *STATIC, *SOME)
    _, _, addresses = output.partition("Addresses: emulated, not measured")
    # The two forms of GELU launch the same kernel.
    rows = [line.split() for line in addresses.splitlines() if line.startswith("gelu_bias_gradient ")]
    assert [row[1] for row in rows] == ["float64", "float32", "float16"]
    assert all(row[4] == row[7] == row[10] == "1.00" for row in rows)
    assert "Bytes: emulated, not measured" in addresses


def test_json(capsys, report):
    # From end to end: that the fixture asks for what the command asks for.
    code, output, error = run(capsys, *STATIC, *SOME, "--json")
    assert (code, error) == (0, "")
    assert json.loads(output) == json.loads(json.dumps(as_dict(report)))


def test_what_is_in_the_json(report):
    content = as_dict(report)
    assert content["compiler"].startswith("13.")
    assert {kernel["variant"] for kernel in content["kernels"]} == {"float64", "float32", "float16"}
    for kernel in content["kernels"]:
        assert kernel["kernel"] == "gelu_bias_gradient" and kernel["architecture"] == "sm_80"
        assert 0 < kernel["occupancy"] <= 1
        assert kernel["stack_bytes"] == kernel["spill_store_bytes"] == kernel["spill_load_bytes"] == 0
    rooflines, traffic = content["rooflines"], content["traffic"]
    assert rooflines["what"] == "modelled bound, not measured"
    names = ["T4", "A100", "RTX 4090", "H100", "B200"]
    assert [device["name"] for device in rooflines["devices"]] == names
    for op in rooflines["ops"]:
        assert op["op"] == "bias_gelu_backward"
        assert list(op["bounds"]) == names
        assert all(bound["seconds"] > 0 for bound in op["bounds"].values())
    assert traffic["what"] == "emulated, not measured"
    assert traffic["missing"] is None
    assert len(traffic["ops"]) == 6
    assert traffic["ops"][0]["kernels"][0]["loads"]["requests"] > 0


def test_without_a_cpp_compiler_the_rest_is_shown(capsys, found):
    found(traffic=[], no_traffic="the emulator needs a C++ compiler")
    code, output, error = run(capsys, *STATIC, *SOME)
    assert (code, error) == (0, "")
    assert "No stack and no spills" in output
    assert "Left out: the emulator needs a C++ compiler" in output
    assert json.loads(run(capsys, *STATIC, *SOME, "--json")[1])["traffic"] == {
        "what": "emulated, not measured",
        "missing": "the emulator needs a C++ compiler",
        "ops": [],
    }


def test_a_missing_cpp_compiler_is_no_error(report, monkeypatch):
    def fail():
        raise emulator.EmulatorError("the emulator needs a C++ compiler")

    monkeypatch.setattr("npbert.cuda.emulator.compiler", fail)
    monkeypatch.setattr("npbert.cuda.facts.report.collect", lambda *arguments: report.kernels)
    without = static_report(["gelu_bias_gradient"], [], progress_bar)
    assert (without.traffic, without.no_traffic) == ([], "the emulator needs a C++ compiler")
    assert without.kernels == report.kernels
    assert [one.bounds for one in without.rooflines] == [one.bounds for one in report.rooflines]


def test_what_uses_the_stack_is_counted(capsys, report, found):
    spilling = report.kernels[0]._replace(stack_bytes=16, spill_store_bytes=4)
    found(kernels=[spilling, *report.kernels[1:]])
    _, output, _ = run(capsys, *STATIC, *SOME)
    assert "1 of 3 kernels use the stack." in output
    assert "4 + 0" in output
