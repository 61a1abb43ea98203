"""What ``import npbert`` costs: NumPy and next to nothing else, in modules and in time."""

import subprocess
import sys
from pathlib import Path

from npbert.bench.imports import measure

ROOT = Path(__file__).resolve().parent.parent

# Of the standard library: slow to import, and BERT's arithmetic has no use for them.
HEAVY = {"argparse", "asyncio", "importlib.metadata", "multiprocessing", "unittest"}


def modules_after(statement: str) -> set[str]:
    """Names of all modules loaded once a fresh interpreter has run ``statement``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_loads_numpy_and_nothing_else():
    # What NumPy loads by itself, and what site-packages loads at every start, is in both sets.
    added = modules_after("import npbert") - modules_after("import numpy")
    packages = {name.partition(".")[0] for name in added}
    # More of NumPy itself (numpy.typing) is fine; safetensors, threadpoolctl, rich, cupy would not be.
    assert packages - sys.stdlib_module_names - {"numpy"} == {"npbert"}
    assert not added & HEAVY


def test_only_its_own_interface_needs_scikit_learn():
    without = "import sys; sys.modules['sklearn'] = None"
    code = f"{without}; import npbert.training.loop; print('!'); import npbert.sklearn"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (1, "!")
    assert done.stderr.count("Traceback") == 1
    wanted = 'ImportError: npbert.sklearn needs scikit-learn: pip install "npbert[sklearn]"'
    assert done.stderr.splitlines()[-1] == wanted


def test_import_takes_at_most_1_3_times_as_long_as_numpy():
    # Processor time, and the least of several: other programs on the machine hardly disturb either. More
    # repeats only bring both minima closer to the truth, so they give a slow import no second chance.
    least = {"numpy": float("inf"), "npbert": float("inf")}
    for _ in range(3):
        seconds = measure(repeats=7)
        least = {module: min(least[module], *seconds[module, "processor"]) for module in least}
        if least["npbert"] <= 1.3 * least["numpy"]:
            break
    assert 0 < least["npbert"] <= 1.3 * least["numpy"], f"seconds: {least}"
