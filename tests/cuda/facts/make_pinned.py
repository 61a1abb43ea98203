"""Record pinned.json: what the kernels need, compiled for every architecture.

Run it again where a kernel was changed on purpose, and look at the difference::

    pip install ".[test,cuda-static]"
    python -m tests.cuda.facts.make_pinned

The file names the compiler's version; another one may need other registers.
"""

from npbert.cuda.facts.architectures import ARCHITECTURES
from npbert.cuda.facts.collect import collect
from npbert.cuda.facts.problems import problems
from npbert.cuda.facts.toolchain import require_toolchain
from npbert.cuda.facts.variants import kernel_variants
from tests.cuda.facts import pinned


def main() -> None:
    """Compile everything, and write the file."""
    compiler = require_toolchain()
    facts = collect(kernel_variants(problems()), list(ARCHITECTURES.values()))
    pinned.FILE.write_text(pinned.pin(compiler, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
