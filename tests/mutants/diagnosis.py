"""Does the checker name the mistake?  python -m tests.mutants.diagnosis

Every mutant of an op, a part of the model or a head is run through the cases of the gradient check's suite
that look at it, and the first case in which its gradients are wrong is put to the checker twice: with the
catalogue's backwards as known mistakes, and with nothing but the figures. Some mutants have no gradients to
diagnose: those whose gradients are right (the loss is wrong, or an error message), those whose gradients are
the right ones of a wrong forward, and those that only inputs outside of the suite show. What a check reports
by name (a missing gradient, a wrong dtype, an exception) needs no diagnosis and counts as named.
"""

import argparse
import fnmatch
import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npbert.gradcheck import Mistake, Report, check
from npbert.gradcheck.objective import Objective
from npbert.gradcheck.oracles import complex_step
from npbert.gradcheck.pair import Pair, find_leaves
from npbert.gradcheck.suite import case_names, draw_problem
from npbert.gradcheck.suite.case import Problem
from tests.mutants.catalogue import ROOT, Mutant, apply, load, source

EXAMPLE = """example: python -m tests.mutants.diagnosis --only 'layernorm-*' --verbose

exit status: 0 at least 90 % are named first, 1 fewer are, 2 bad usage"""

REQUIRED = 0.9
SEED = 0
SAME = 1e-9  # gradients closer than this, relative to the largest entry, are the same

_MODEL = ("embeddings", "self-attention", "feed-forward", "encoder layer*", "pooler", "body*")
_TASKS = (
    "pretraining*",
    "masked LM*",
    "next sentence",
    "sequence*",
    "token*",
    "question*",
    "multiple choice",
)
# The cases that look at a module, the simplest first.
CASES = {
    "npbert/ops/activations.py": ("activation *",),
    "npbert/ops/binary_cross_entropy.py": ("binary cross-entropy*",),
    "npbert/ops/cross_entropy.py": ("cross-entropy*", "mean squared*", "binary*"),
    "npbert/ops/dropout.py": ("dropout",),
    "npbert/ops/elementwise.py": ("gelu*", "activation*"),
    "npbert/ops/embedding.py": ("embedding*", "embeddings"),
    "npbert/ops/erf.py": ("gelu*", "activation gelu*"),
    "npbert/ops/gelu.py": ("gelu*", "activation gelu*"),
    "npbert/ops/layernorm.py": ("layernorm*",),
    "npbert/ops/linear.py": ("linear*",),
    "npbert/ops/mean_squared_error.py": ("mean squared error*",),
    "npbert/ops/pooling.py": ("CLS*", "mean pooling*", "L2*"),
    "npbert/ops/relative_position.py": ("relative position*",),
    "npbert/ops/sigmoid.py": ("activation*", "binary*"),
    "npbert/ops/softmax.py": ("softmax (mask)",),
    "npbert/ops/softmax_attention.py": ("softmax attention*", "self-attention"),
    "npbert/model.py": _MODEL,
    "npbert/heads/__init__.py": _TASKS,
    "npbert/heads/classification.py": _TASKS,
    "npbert/heads/pretraining.py": _TASKS,
    "npbert/heads/question_answering.py": ("question*",),
}


class Shown(NamedTuple):
    """A case in which a mutant's gradients are wrong, and what they are there."""

    case: str
    gradients: list[Any] | None  # None: a call fails, or does not return as many as there should be


class Score(NamedTuple):
    """What the checker said of one mutant."""

    id: str
    file: str
    outcome: str  # "scored", or why there is nothing to score
    expected: str = ""  # the kind of diagnosis that the catalogue expects of the figures alone
    case: str = ""
    named: str = ""  # what it named first with the catalogue's mistakes
    right: bool = False
    kind: str = ""  # the kind that it named first from the figures alone
    sentence: str = ""


class _Source(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Loads one module from a text."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path, self.text = name, path, text

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        is_package = self.path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(self.path), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        return self.text.encode()


@contextmanager
def mutated_problems(mutant: Mutant) -> Iterator[Callable[[str], Problem]]:
    """Import a second npbert, with the mistake in it; yield what draws the cases of its suite.

    What it yields raises ValueError for a case that the mistake has removed. The package as it is comes back
    afterwards.
    """
    name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    finder = _Source(name, ROOT / mutant.file, apply(mutant, source(mutant)))
    before = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] == "npbert"}
    sys.meta_path.insert(0, finder)
    try:
        suite = importlib.import_module("npbert.gradcheck.suite")
        yield lambda case: suite.draw_problem(case, SEED)
    finally:
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if key.partition(".")[0] == "npbert"]:
            del sys.modules[key]
        sys.modules.update(before)


def cases_of(mutant: Mutant) -> list[str]:
    """Return the names of the cases that look at a mutant's module, in the order of the patterns."""
    patterns = CASES.get(mutant.file, ())
    names = [name for pattern in patterns for name in case_names() if fnmatch.fnmatchcase(name, pattern)]
    return list(dict.fromkeys(names))


@cache
def cotangents_of(case: str) -> list[Any]:
    """Return the cotangents that the checker draws for a case, as its backward gets them."""
    problem, seen = draw_problem(case, SEED), []

    def spy(doutput: Any, cache: Any) -> Any:
        seen.append(doutput if isinstance(doutput, tuple) else (doutput,))
        return problem.backward(doutput, cache)

    zeros = problem.structural_zeros
    check(problem.fn, spy, problem.args, seed=SEED, max_coordinates=1, structural_zeros=zeros)
    return [None if one is None else one.copy() for one in seen[0]]


class Situation:
    """A case in float64, with the cotangents that the checker draws for it."""

    def __init__(self, case: str, problem: Problem) -> None:
        leaves = find_leaves(problem.fn, problem.args, None)
        self.pair = Pair(problem.fn, problem.backward, problem.args, leaves)
        self.values = [leaf.value.astype(np.float64) for leaf in leaves]
        self.cotangents = cotangents_of(case)

    def gradients(self) -> list[Any]:
        """Return what the backward gives."""
        return self.pair.gradients_at(self.values, self.cotangents)

    def is_consistent(self, gradients: Sequence[Any]) -> bool:
        """Tell whether gradients are those of the forward, along a random direction through each argument."""
        objective = Objective(self.pair, self.values, self.cotangents, True)
        rng = np.random.default_rng(SEED)
        errors, sizes = [], []
        for number, (value, gradient) in enumerate(zip(self.values, gradients, strict=True)):
            if gradient is None or np.shape(gradient) != value.shape:
                return False
            along = rng.standard_normal(value.shape)
            want = complex_step(objective.along({number: along})).value
            errors.append(abs(float(np.sum(gradient * along)) - want))
            sizes.append(float(np.sum(np.abs(gradient * along))) + abs(want))
        # Beside the largest gradient, the structural zeros are round-off.
        return all(e <= SAME * size + 1e-13 * max(sizes) for e, size in zip(errors, sizes, strict=True))

    def as_returned(self, gradients: Sequence[Any]) -> tuple[Any, ...]:
        """Return the leaves' gradients as a backward does: one an argument, entries in their dictionaries."""
        returned: dict[int, Any] = {}
        for leaf, gradient in zip(self.pair.leaves, gradients, strict=True):
            if leaf.key is None:
                returned[leaf.position] = gradient
            else:
                returned.setdefault(leaf.position, {})[leaf.key] = gradient
        return tuple(returned[position] for position in sorted(returned))


def show(mutant: Mutant, originals: dict[str, list[Any]]) -> list[Shown] | str:
    """Run the cases of a mutant; return those in which its gradients are wrong, or why there are none.

    Parameters
    ----------
    mutant : Mutant
    originals : dict of str to list
        The right gradients by case, as far as they have been computed; completed here.
    """
    shown, consistent = [], False
    for case in cases_of(mutant):
        if case not in originals:
            originals[case] = Situation(case, draw_problem(case, SEED)).gradients()
    with mutated_problems(mutant) as draw, np.errstate(all="ignore"):
        for case in cases_of(mutant):
            try:
                problem = draw(case)
            except ValueError:
                continue
            try:
                situation = Situation(case, problem)
                gradients = situation.gradients()
            except Exception:  # whatever the mistake makes it raise
                shown.append(Shown(case, None))
                continue
            if same(gradients, originals[case]):
                continue
            if situation.is_consistent(gradients):
                consistent = True
            else:
                shown.append(Shown(case, gradients))
    # A case in which figures are wrong says more than one in which the call fails.
    shown.sort(key=lambda one: one.gradients is None)
    if shown:
        return shown
    return "consistent gradients of a wrong function" if consistent else "no gradient is wrong"


def same(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Tell whether two backwards gave the same."""
    return len(ones) == len(others) and all(map(_same, ones, others))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (np.all(np.isfinite(one)) and np.all(np.isfinite(other))):
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(np.all(np.abs(one - other) <= SAME * np.max(np.abs(other), initial=0.0)))


def known_mistake(mutant: Mutant, gradients: Sequence[Any], situation: Situation) -> Mistake:
    """Return a mutant as a known mistake.

    What it does wrong may be in the forward's cache as well as in the backward, so its gradients were
    recorded; they are given for the cotangents that they belong to, and no others.
    """

    def backward(doutput: Any, cache: Any) -> Any:
        given = doutput if isinstance(doutput, tuple) else (doutput,)
        for one, other in zip(given, situation.cotangents, strict=True):
            assert one is None or np.array_equal(one, other), "another cotangent"
        return situation.as_returned(gradients)

    return Mistake(mutant.id, mutant.description, backward)


def examine(mutant: Mutant, case: str, mistakes: Sequence[Mistake]) -> Report:
    """Put a mutant to the checker."""
    with mutated_problems(mutant) as draw, np.errstate(all="ignore"):
        problem = draw(case)
        return check(
            problem.fn,
            problem.backward,
            problem.args,
            seed=SEED,
            structural_zeros=problem.structural_zeros,
            max_coordinates=problem.max_coordinates,
            mistakes=mistakes,
        )


def score(mutant: Mutant, shown: Sequence[Shown], wrong_there: dict[str, dict[Mutant, list[Any]]]) -> Score:
    """Return what the checker says of a mutant.

    Parameters
    ----------
    mutant : Mutant
    shown : sequence of Shown
        The cases in which it is wrong.
    wrong_there : dict of dict
        By case, the gradients of every mutant that is wrong there.
    """
    result = Score(mutant.id, mutant.file, "scored", mutant.diagnosis)
    for one in shown:
        situation = Situation(one.case, draw_problem(one.case, SEED))
        candidates = wrong_there.get(one.case, {})
        mistakes = [known_mistake(other, found, situation) for other, found in candidates.items()]
        report = examine(mutant, one.case, mistakes)
        if report.status != "failed":
            continue
        result = result._replace(case=one.case)
        if not report.diagnoses:
            faults = [check.name for check in report.checks if check.status == "failed"]
            named = f"by the check: {', '.join(faults)}" if faults else "nothing"
            return result._replace(named=named, right=bool(faults), kind="named by a check")
        first = report.diagnoses[0]
        equal = [other.id for other, found in candidates.items() if same(found, one.gradients or [])]
        alone = examine(mutant, one.case, ()).diagnoses[0]
        return result._replace(
            named=first.mistake or first.kind,
            right=first.mistake in (mutant.id, *equal),
            kind=alone.kind,
            sentence=alone.sentence,
        )
    return result._replace(outcome="no case of the suite fails")


def run(mutants: Sequence[Mutant], report: Callable[[Score], None]) -> list[Score]:
    """Score mutants, in their order."""
    originals: dict[str, list[Any]] = {}
    shown: dict[Mutant, list[Shown] | str] = {}
    wrong_there: dict[str, dict[Mutant, list[Any]]] = {}
    for mutant in mutants:
        shown[mutant] = found = show(mutant, originals)
        for one in found if isinstance(found, list) else ():
            if one.gradients is not None:
                wrong_there.setdefault(one.case, {})[mutant] = one.gradients
    scores = []
    for mutant, found in shown.items():
        if isinstance(found, str):
            scores.append(Score(mutant.id, mutant.file, found, mutant.diagnosis))
        else:
            scores.append(score(mutant, found, wrong_there))
        report(scores[-1])
    return scores


class Line(NamedTuple):
    """One line of the table."""

    file: str
    mutants: int
    scored: int
    named: int  # named first, with the catalogue's mistakes
    patterns: int  # those for which the catalogue expects a kind of diagnosis
    patterns_named: int  # those that get it from the figures alone


def summary(scores: Sequence[Score]) -> list[Line]:
    """Return one line a file, and the total."""
    files = list(dict.fromkeys(score.file for score in scores))
    lines = [_line(file, [score for score in scores if score.file == file]) for file in files]
    return [*(line for line in lines if line.scored), _line("total", scores)]


def _line(name: str, scores: Sequence[Score]) -> Line:
    scored = [score for score in scores if score.outcome == "scored"]
    expected = [score for score in scored if score.expected]
    named = sum(score.right for score in scored)
    return Line(name, len(scores), len(scored), named, len(expected), sum(map(_by_pattern, expected)))


def _by_pattern(score: Score) -> bool:
    return score.kind == score.expected


def table(lines: Sequence[Line]) -> str:
    """Return the lines as text."""
    head = f"{'':32} {'mutants':>8} {'wrong gradients':>16} {'named first':>18} {'by figures alone':>18}"
    rows = [
        f"{line.file.removeprefix('npbert/'):32} {line.mutants:8} {line.scored:16}"
        f" {_share(line.named, line.scored):>18} {_share(line.patterns_named, line.patterns):>18}"
        for line in lines
    ]
    return "\n".join([head, *rows])


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} {part / whole:4.0%}" if whole else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.diagnosis",
        description="Seed one mistake at a time and see whether the gradient check names it first.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="GLOB", help="only mutants (or files) that match")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write scores to a file")
    parser.add_argument("--verbose", action="store_true", help="show what is said of every mutant")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in load()
        if mutant.equivalent is None and mutant.file in CASES and _selected(mutant, options.only)
    ]
    if not mutants:
        print("no mutant of a gradient matches", file=sys.stderr)
        return 2

    def report(score: Score) -> None:
        missed = not score.right or (score.expected and not _by_pattern(score))
        if score.outcome == "scored" and (missed or options.verbose):
            expected = f" (expected: {score.expected})" if score.expected else ""
            print(f"{score.id} [{score.case}]\n    named: {score.named}\n    alone: {score.kind}{expected}")
            print(f"    {score.sentence}", flush=True)

    started = time.monotonic()
    scores = run(mutants, report)
    lines = summary(scores)
    print(f"\n{table(lines)}\n")
    for reason in sorted({score.outcome for score in scores} - {"scored"}):
        print(f"{sum(score.outcome == reason for score in scores):4} not scored: {reason}")
    print(f"{time.monotonic() - started:.0f} s")
    if options.json:
        content = {
            "scores": [line._asdict() for line in lines],
            "results": [score._asdict() for score in scores],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if lines[-1].named >= REQUIRED * lines[-1].scored else 1


def _selected(mutant: Mutant, patterns: Sequence[str] | None) -> bool:
    names = (mutant.id, mutant.file)
    return not patterns or any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)


if __name__ == "__main__":
    sys.exit(main())
