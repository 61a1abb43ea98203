"""What README.md tells people to run. The tests and .ci/run both read it from here, so it cannot drift.

    python tests/readme.py

prints the two commands, one a line, for .ci/run.
"""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """Return the text of each fenced block of one language, in order."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    """Return every line of every shell block."""
    return [line for block in blocks("sh") for line in block.splitlines()]


def commands() -> list[str]:
    """Return the lines that install npbert from the checkout and then use it."""
    return [line for line in shell_lines() if line.startswith('pip install ".[')]


if __name__ == "__main__":
    print("\n".join(commands()))
