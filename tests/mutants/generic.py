"""Small mechanical changes to npbert/ops, made by cosmic-ray:  python -m tests.mutants.generic

The catalogue holds the mistakes that people make; cosmic-ray makes those that nobody thought of: every + a -,
every < a <=, every 1 a 2 and a 0. Its operators change the source, and the runner of the catalogue runs the
tests of the changed module. What survives, and why, is written down in SURVIVORS.md.

It needs cosmic-ray (pip install cosmic-ray), and is no part of the default tests.
"""

import argparse
import difflib
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.catalogue import ROOT, Edit, Mutant, load
from tests.mutants.results import CACHE, PASSED, Result, Store
from tests.mutants.runner import Limits, Runner
from tests.mutants.table import scores, table

# Of cosmic-ray's operators, the nearest replacements of each symbol. Left out: those for |, which npbert/ops
# has in annotations only, and those for decorators and exceptions, of which there are next to none.
OPERATORS = (
    *("ReplaceBinaryOperator_" + pair for pair in ("Add_Sub", "Add_Mul", "Sub_Add", "Sub_Mul", "Mul_Div")),
    *("ReplaceBinaryOperator_" + pair for pair in ("Mul_Add", "Div_Mul", "Div_Sub", "Pow_Mul", "Pow_Add")),
    *("ReplaceBinaryOperator_" + pair for pair in ("FloorDiv_Div", "FloorDiv_Mul", "Mod_Div", "Mod_Mul")),
    *("ReplaceBinaryOperator_" + pair for pair in ("RShift_LShift", "BitAnd_BitOr", "BitXor_BitAnd")),
    *(
        "ReplaceComparisonOperator_" + pair
        for pair in ("Eq_NotEq", "Eq_GtE", "NotEq_Eq", "NotEq_Gt", "Lt_LtE")
    ),
    *("ReplaceComparisonOperator_" + pair for pair in ("Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE")),
    *("ReplaceComparisonOperator_" + pair for pair in ("GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is")),
    *("ReplaceUnaryOperator_" + pair for pair in ("USub_UAdd", "Delete_USub", "Delete_Not")),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("NumberReplacer", "ZeroIterationForLoop"),
)


def changed_sources(text: str) -> Iterator[tuple[str, str]]:
    """Yield ``(operator, source)`` for every change that the operators can make."""
    from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-not-found]
    from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found]
    from cosmic_ray.plugins import get_operator  # type: ignore[import-not-found]

    nodes = list(ast_nodes(get_ast(text)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        for place in range(places):
            changed = mutate_code(text, operator, place)
            if changed is not None and changed != text:
                yield name, changed


def mutants() -> list[Mutant]:
    """Return every mechanical change of npbert/ops, each with the tests of its module."""
    tests = {mutant.file: mutant.tests for mutant in load() if mutant.file.startswith("npbert/ops/")}
    found = []
    for file in tests:
        text = (ROOT / file).read_text(encoding="utf-8")
        for number, (operator, changed) in enumerate(changed_sources(text)):
            where, description = _difference(text, changed)
            name = f"{file.removeprefix('npbert/ops/')}:{where} #{number}"
            edits = (Edit(text, changed),)
            found.append(Mutant(name, file, tests[file], description, edits, (), operator, None))
    return found


def _difference(before: str, after: str) -> tuple[int, str]:
    """Return the number of the first line that changed, and ``old  ->  new``."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    number = int(lines[2].split()[1].lstrip("-").split(",")[0])
    old = " ".join(line[1:].strip() for line in lines[3:] if line[0] == "-")
    new = " ".join(line[1:].strip() for line in lines[3:] if line[0] == "+")
    return number, f"{old}  ->  {new}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.generic", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", metavar="FILE", help="only this module, such as linear.py")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the changes, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="show the changes and run nothing")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("cosmic_ray") is None:
        parser.error("cosmic-ray is not installed; try: pip install cosmic-ray")
    chosen = [m for m in mutants() if options.only is None or m.file == f"npbert/ops/{options.only}"]
    if options.sample is not None and options.sample < len(chosen):
        keep = set(random.Random(options.seed).sample(range(len(chosen)), options.sample))
        chosen = [mutant for number, mutant in enumerate(chosen) if number in keep]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.id:32} {mutant.description}")
        print(f"{len(chosen)} changes")
        return 0

    started, done = time.monotonic(), 0
    by_id = {mutant.id: mutant for mutant in chosen}

    def report(result: Result, is_new: bool) -> None:
        nonlocal done
        done += 1
        if is_new:
            print(
                f"[{done:4}/{len(chosen)}] {result.outcome:8} {result.id:32} {result.seconds:6.1f} s",
                flush=True,
            )

    with tempfile.TemporaryDirectory(prefix="npbert-mutants-") as folder:
        store = Store(CACHE / "generic.jsonl")
        runner = Runner(Path(folder).resolve(), options.jobs, store, Limits(), report)
        results = runner.run(chosen, baseline=False, whole_suite=False)
    print()
    print(table(scores(chosen, results)))
    print(f"{time.monotonic() - started:.0f} s; survivors:")
    for name, result in results.items():
        if result.outcome == PASSED:
            print(f"{name:32} {by_id[name].description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
