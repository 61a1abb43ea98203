"""The facts that a change of a kernel must not make worse, and what "worse" is."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from npbert.cuda.facts.architectures import ARCHITECTURES
from npbert.cuda.facts.collect import KernelFacts, collect
from npbert.cuda.facts.problems import problems
from npbert.cuda.facts.variants import kernel_variants

FILE = Path(__file__).with_name("pinned.json")
HOW_TO_RENEW = "python -m tests.cuda.facts.make_pinned"
FIELDS = (
    "registers",
    "shared_bytes",
    "blocks",
    "loads",
    "wide_loads",
    "stores",
    "wide_stores",
    "matrix_products",
    "matrix_columns",
)
# Registers are handed out to a warp eight a thread: within that the compiler may do as it likes.
REGISTER_SLACK = 8
# So much of the 16-byte accesses may go, as a loop is unrolled another number of times, but not most of them.
LEAST_WIDE = 0.75

Pinned = dict[str, Any]


def facts_of(architecture: str) -> list[KernelFacts]:
    """Compile all kernels for one architecture."""
    return collect(kernel_variants(problems()), [ARCHITECTURES[architecture]])


def name_of(facts: KernelFacts) -> str:
    return f"{facts.kernel} {facts.variant}"


def read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def pin(compiler: str, facts: Iterable[KernelFacts]) -> str:
    """Return the text of the file: one line a kernel."""
    lines = [f'{{\n"compiler": "{compiler}",\n"kernels": {{']
    by_architecture: dict[str, list[str]] = {}
    for one in facts:
        fields = {field: getattr(one, field) for field in FIELDS}
        line = f"{json.dumps(name_of(one))}: {json.dumps(fields)}"
        by_architecture.setdefault(one.architecture, []).append(line)
    parts = [f'"{name}": {{\n' + ",\n".join(group) + "\n}" for name, group in by_architecture.items()]
    return "\n".join([*lines, ",\n".join(parts), "}\n}\n"])


def complaints(pinned: Pinned, found: Sequence[KernelFacts]) -> list[str]:
    """Return, a line each, what is worse than it was.

    Parameters
    ----------
    pinned : dict
        Facts of an architecture, by `name_of`.
    found : sequence of KernelFacts
        Of the same architecture.
    """
    lines = []
    for facts in found:
        name = f"{name_of(facts)} {facts.architecture}"
        if facts.stack_bytes or facts.spill_store_bytes or facts.spill_load_bytes or facts.stack_accesses:
            lines.append(
                f"{name}: {facts.stack_bytes} bytes of stack, spills of {facts.spill_store_bytes} + "
                f"{facts.spill_load_bytes} bytes, {facts.stack_accesses} accesses; none is allowed"
            )
        before = pinned.get(name_of(facts))
        if before is None:
            lines.append(f"{name}: not pinned")
        else:
            lines += [f"{name}: {line}" for line in _worse(before, facts)]
    names = {name_of(facts) for facts in found}
    return lines + [f"{name}: pinned, but there is no such kernel" for name in pinned if name not in names]


def _worse(before: Pinned, now: KernelFacts) -> list[str]:
    lines = []
    if now.registers > before["registers"] + REGISTER_SLACK:
        lines.append(f"{now.registers} registers, were {before['registers']}")
    if now.shared_bytes > before["shared_bytes"]:
        lines.append(f"{now.shared_bytes} bytes of shared memory, were {before['shared_bytes']}")
    if now.blocks < before["blocks"]:
        lines.append(f"{now.blocks} resident blocks, were {before['blocks']}")
    for what in ("loads", "stores"):
        wide, all_before = getattr(now, f"wide_{what}"), before[f"wide_{what}"]
        if wide < LEAST_WIDE * all_before:
            lines.append(f"{wide} {what} of 16 bytes, were {all_before}")
    for field in ("matrix_products", "matrix_columns"):
        if getattr(now, field) != before[field]:
            lines.append(f"{field} is {getattr(now, field)}, was {before[field]}")
    return lines
