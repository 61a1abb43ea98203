"""What all commands have in common: help, exit codes, one-line errors, warnings, pipes."""

import os
import shlex
import signal
import subprocess
import sys
import warnings

import pytest

from npbert import __version__
from npbert.cli import COMMANDS, build_parser, main
from tests.cli.running import ROOT, assert_fails, assert_one_line, npbert, python, run

NAMES = (
    "demo",
    "embed",
    "search",
    "fill-mask",
    "gradcheck",
    "learn",
    "pretrain",
    "finetune",
    "predict",
    "bench",
    "info",
)


def replace_command(monkeypatch, function):
    """Let ``npbert info`` do something else."""
    monkeypatch.setattr("npbert.cli.info.run", function)


def raising(error):
    """Return a command that raises."""

    def command(arguments):
        raise error

    return command


def test_help_lists_the_commands(capsys):
    code, output, error = run(capsys, "--help")
    assert (code, error) == (0, "")
    assert len(COMMANDS) == len(NAMES)
    for name in NAMES:
        assert f"\n    {name} " in output


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_that_parse(name, capsys, monkeypatch):
    code, output, error = run(capsys, name, "--help")
    assert (code, error) == (0, "")
    examples = output.partition("examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        words = shlex.split(example.rpartition("|")[2])
        assert words[:2] == ["npbert", name]
        arguments = build_parser().parse_args(words[1:])  # exits where the example is wrong
        assert arguments.command == name


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"npbert {__version__}\n", "")


def test_no_command(capsys):
    assert_fails(capsys, [], 2, "no command", "demo", "fill-mask", "--help")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["frobnicate"], "frobnicate"),
        (["--frobnicate"], "--frobnicate"),
        (["info", "--frobnicate"], "--frobnicate"),
        (["info", "--js"], "--js"),  # no abbreviations: they break when an option is added
        (["search", "corpus.txt", "query", "--top-k", "0"], "at least 1"),
        (["search", "corpus.txt", "query", "--top-k", "many"], "not an integer"),
        (["search", "corpus.txt"], "QUERY"),
        (["fill-mask", "--model", "m"], "TEXT"),
        (["fill-mask", "[MASK]", "--model", "m", "--top-k", "-1"], "at least 1"),
        (["embed", "corpus.txt"], "--output"),
        (["embed", "corpus.txt", "-o", "o.npy", "--batch-tokens", "0"], "at least 1"),
        (["embed", "corpus.txt", "-o", "o.npy", "--dtype", "int8"], "int8"),
        (["gradcheck", "--seed", "-1"], "at least 0"),
        (["demo", "--seed", "x"], "not an integer"),
    ],
)
def test_bad_usage(argv, word, capsys):
    assert_fails(capsys, argv, 2, word)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("two\nlines"), 1, ["error: two lines"]),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), 1, ["x.txt: no such file"]),
        (PermissionError(13, "Permission denied", "x.txt"), 1, ["x.txt: permission denied"]),
        (MemoryError(), 1, ["out of memory"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (
            ImportError('pip install "npbert[plot]"'),
            1,
            ["npbert info: error: ", 'pip install "npbert[plot]"'],
        ),
        (ZeroDivisionError("division by zero"), 1, ["internal error", "ZeroDivisionError", "--debug"]),
    ],
)
def test_an_exception_is_one_line(error, code, words, capsys, monkeypatch):
    replace_command(monkeypatch, raising(error))
    assert_fails(capsys, ["info"], code, "npbert info: ", *words)


@pytest.mark.parametrize("argv", [["--debug", "info"], ["info", "--debug"]])
def test_debug_lets_the_traceback_through(argv, monkeypatch):
    replace_command(monkeypatch, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(argv)


def test_a_warning_is_one_line(capsys, monkeypatch):
    def command(arguments):
        warnings.warn("the head\nis fresh", UserWarning, stacklevel=1)
        return 0

    replace_command(monkeypatch, command)
    assert run(capsys, "info") == (0, "", "npbert info: warning: the head is fresh\n")


def test_output_before_an_error_is_kept(capsys, monkeypatch):
    def command(arguments):
        print("so far")
        raise ValueError("no further")

    replace_command(monkeypatch, command)
    assert run(capsys, "info") == (1, "so far\n", "npbert info: error: no further\n")


def test_as_a_module():
    done = npbert("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"npbert {__version__}\n", "")
    done = npbert("frobnicate")
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, "frobnicate")


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from npbert.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = python("-c", program)
    loaded = set(done.stderr.split())
    assert "npbert.cli" in loaded
    assert not loaded & {"rich", "safetensors", "threadpoolctl", "npbert.gradcheck.suite"}


@pytest.mark.parametrize("arguments", [["--help"], ["gradcheck", "--list"]])
def test_broken_pipe_is_silent(arguments):
    # The reading end is closed before anything is written.
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = npbert(*arguments, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = npbert("gradcheck", "--list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert_one_line(done.stderr, "no space left")


def test_ctrl_c():
    # A shell starts what it runs in the background with SIGINT ignored, and that is inherited.
    program = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import npbert.cli.info as info; from npbert.cli import main\n"
        "def run(arguments): print('ready', flush=True); time.sleep(60)\n"
        "info.run = run; sys.exit(main(['info']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "")
    assert_one_line(error, "interrupted")


def test_output_in_another_encoding(encoder, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("naïve\n", encoding="utf-8")
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = npbert("search", path, "cat", "--model", encoder, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "na\\xefve" in done.stdout
