"""What ``pip install`` puts where: read from the record of the installation that the tests run beside."""

from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed() -> Distribution:
    """The installed npbert, as pip recorded it; not the egg-info that a build leaves in the checkout."""
    for distribution in distributions(name="npbert"):
        # Only an installation has a RECORD; an editable one's names no more than a pointer to the checkout.
        if "npbert/__init__.py" in (distribution.read_text("RECORD") or ""):
            return distribution
    pytest.skip('npbert is not installed, or editable; try: pip install ".[test]"')


def test_every_module_of_the_checkout_is_installed(installed):
    # A package without __init__.py would be missing: find_packages passes over it.
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "npbert").rglob("*.py")}
    there = {str(file) for file in installed.files}
    assert "npbert/ops/layernorm.py" in here
    assert here - there == set()


def test_installed_files_beside_the_modules(installed):
    there = {str(file) for file in installed.files}
    assert "npbert/py.typed" in there
    assert {"npbert/gradcheck/html/page.css", "npbert/gradcheck/html/page.js"} <= there
    assert "npbert/recipes/npbert_tiny/model_card.md" in there
    models = {str(path.relative_to(ROOT)) for path in (ROOT / "npbert" / "models").glob("*/*")}
    assert models - there == set()
    kernels = {f"npbert/kernels/{path.name}" for path in (ROOT / "kernels").iterdir()}
    assert "npbert/kernels/README.md" in kernels
    assert kernels - there == set()


def test_nothing_else_is_installed(installed):
    # Above all no top-level "kernels", "tests" or "benchmarks": other projects have packages of these names.
    # The plugin for pytest stands beside the package, so that pytest does not import NumPy at every start.
    tops = {file.parts[0] for file in installed.files} - {"__pycache__"}
    assert tops == {"npbert", f"npbert-{installed.version}.dist-info", "pytest_npbert.py", ".."}
    outside = {file.name for file in installed.files if file.parts[0] == ".."}
    assert {Path(name).stem for name in outside} == {"npbert"}  # the command


def test_hard_dependencies(installed):
    hard = {line for line in installed.requires if "extra ==" not in line}
    assert {line.split(">=")[0] for line in hard} == {"numpy", "safetensors", "threadpoolctl"}
