"""Running npbert in this process and in one of its own, and looking at how it failed."""

import os
import subprocess
import sys
from pathlib import Path

from npbert.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent


def run(capsys, *argv) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it printed on the standard output and error."""
    capsys.readouterr()
    code = main([str(argument) for argument in argv])
    output, error = capsys.readouterr()
    return code, output, error


def assert_fails(capsys, argv, code, *words) -> None:
    """Check that a command ends with this exit code, one line on the standard error, and nothing else."""
    found, output, error = run(capsys, *argv)
    assert found == code, error
    assert output == ""
    assert_one_line(error, *words)


def assert_one_line(error: str, *words: str) -> None:
    """Check that an error is one line that has these words, and no traceback."""
    assert error.endswith("\n") and error.count("\n") == 1, error
    assert "Traceback" not in error
    assert error.startswith("npbert")
    for word in words:
        assert word in error, error


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run Python in a process of its own that finds npbert, and capture its output as text."""
    environment = (
        os.environ
        | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": ""}
        | options.pop("env", {})
    )
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120} | options
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, **options)


def npbert(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run ``python -m npbert`` in a process of its own."""
    return python("-m", "npbert", *arguments, **options)
