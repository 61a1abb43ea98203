"""Check what an installation of npbert holds: python -I .ci/check_install.py wheel (or editable)."""

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import npbert

kind = sys.argv[1]
package = Path(npbert.__file__).parent
installed = package.is_relative_to(sysconfig.get_path("purelib"))
assert installed == (kind == "wheel"), f"a {kind} install imports {package}"

# A wheel has the kernels inside the package; an editable install uses the checkout, where they are beside it.
kernels = package / "kernels" if kind == "wheel" else package.parent / "kernels"
assert (kernels / "README.md").is_file(), f"no kernels in {kernels}"
assert (package / "py.typed").is_file(), "no py.typed"
assert (package / "gradcheck" / "html" / "page.js").is_file(), "no page.js"
assert (package / "recipes" / "npbert_tiny" / "model_card.md").is_file(), "no model_card.md"
guesses = npbert.load("npbert-tiny").fill_mask("an oak is a large [MASK].", top_k=1)
assert guesses[0][0].token == "tree", guesses
assert importlib.util.find_spec("pytest_npbert") is not None, "no plugin for pytest"
for name in ("kernels", "tests", "benchmarks", "conftest"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed at the top level"

command = Path(sysconfig.get_path("scripts")) / "npbert"
shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
assert "usage: npbert" in shown, shown

print(
    f"{kind}: npbert {npbert.__version__}, kernels, py.typed, npbert-tiny and the npbert command are in place"
)
