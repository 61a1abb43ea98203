"""The most memory that a piece of work takes, measured in a process of its own.

Interpreter, libraries and parameters are included, as whoever runs it sees it.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

STATUS: Final = Path("/proc/self/status")
MOST_SECONDS: Final = 1800.0


def peak_bytes_of(function: str, **arguments: Any) -> int:
    """Run a function in a fresh process and return the most memory that this took.

    Parameters
    ----------
    function : str
        "module:function".
    arguments : what JSON can hold

    Raises
    ------
    RuntimeError
        If it fails; with the last line that it printed.
    """
    program = "from npbert.bench.memory import main; main()"
    command = [sys.executable, "-c", program, function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    return int(done.stdout.split()[-1])


def peak_bytes() -> int:
    """Return the most memory that this process has taken so far."""
    # Not getrusage first: on Linux its peak begins with that of the process that started this one.
    if STATUS.exists():
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Call what the command line names, with arguments in JSON, and print the peak."""
    module, _, function = sys.argv[1].partition(":")
    getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print(peak_bytes())
