"""The catalogue fits the source: every mistake can be made, and is described; there are enough of them."""

import re
from collections import Counter

import pytest

from npbert import ops
from tests.mutants.catalogue import ROOT, Edit, Mutant, apply, is_compiled, load
from tests.mutants.kernels import BARRIER, drops_a_barrier

MUTANTS = load()
REAL = [mutant for mutant in MUTANTS if mutant.equivalent is None]
FILES = sorted({mutant.file for mutant in MUTANTS})
KERNELS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").glob("*.cu*"))

BACKWARDS = [name for name in ops.__all__ if name.endswith("_backward")]


@pytest.mark.parametrize("file", FILES)
def test_applies_to_the_present_source(file):
    """Fails when a module no longer has the text that an entry replaces: adapt the entry."""
    before = (ROOT / file).read_text(encoding="utf-8")
    programs = {before: "the module as it is"}
    for mutant in MUTANTS:
        if mutant.file == file:
            after = apply(mutant, before)
            if not is_compiled(mutant):
                compile(after, file, "exec")
            assert programs.setdefault(after, mutant.id) == mutant.id, f"{mutant.id} is {programs[after]}"


def test_ids_are_unique():
    assert [id for id, count in Counter(mutant.id for mutant in MUTANTS).items() if count > 1] == []


def test_there_are_enough():
    assert len(REAL) >= 200


@pytest.mark.parametrize("backward", BACKWARDS)
def test_every_backward_has_at_least_five(backward):
    op = backward.removesuffix("_backward").replace("_", "-")
    wrong = [
        mutant.id for mutant in REAL if mutant.id.startswith(op) and any(w[0] == "d" for w in mutant.wrong)
    ]
    assert len(wrong) >= 5


def test_entries_are_complete():
    for mutant in MUTANTS:
        assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", mutant.id)
        assert mutant.description, mutant.id
        assert not mutant.description.endswith("."), mutant.id
        is_equivalent = mutant.equivalent is not None
        assert is_equivalent != bool(mutant.wrong), mutant.id
        assert is_equivalent != bool(mutant.signature), mutant.id
        if is_equivalent:
            assert mutant.equivalent.endswith("."), mutant.id


def test_every_module_of_the_textbook_is_in():
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "npbert" / "ops").glob("*.py")}
    no_formulas = {"npbert/ops/__init__.py", "npbert/ops/array_module.py"}
    assert modules - set(FILES) == no_formulas


def test_every_kernel_is_in():
    assert set(KERNELS) - set(FILES) == {"kernels/tensor_core.cuh"}  # no formulas: names of instructions
    assert sum(is_compiled(mutant) for mutant in REAL) >= 60


@pytest.mark.parametrize("file", KERNELS)
def test_every_barrier_is_dropped(file):
    """Each barrier of a block or a warp, and each wait for copies, is what some mutant leaves out."""
    text = (ROOT / file).read_text(encoding="utf-8")
    dropped = {
        _program(apply(mutant, text)) for mutant in REAL if mutant.file == file and drops_a_barrier(mutant)
    }
    barriers = [match.span() for match in BARRIER.finditer(text)]
    without = {_program(text[:start] + text[end:]) for start, end in barriers}
    assert dropped == without
    assert len(without) == len(barriers)


def _program(text):
    """Return C++ without comments and white space."""
    return "".join(re.sub(r"//.*", "", text).split())


def test_mirrored_tests_exist():
    for test in {test for mutant in MUTANTS for test in mutant.tests}:
        assert (ROOT / test).is_file(), test


MUTANT = Mutant("x", "x.py", (), "", (Edit("a", "b"),), (), "", None)


def test_apply_replaces_the_one_occurrence():
    assert apply(MUTANT, "1a2") == "1b2"


def test_apply_refuses_an_ambiguous_or_missing_text():
    with pytest.raises(ValueError, match=r"x: 'a' occurs 2 times in x\.py, expected once"):
        apply(MUTANT, "aa")
    with pytest.raises(ValueError, match=r"x: 'a' occurs 0 times in x\.py, expected once"):
        apply(MUTANT, "")


def test_apply_replaces_the_occurrence_that_is_meant():
    assert apply(MUTANT._replace(edits=(Edit("a", "b", 2),)), "a a a") == "a b a"
    with pytest.raises(ValueError, match=r"occurs 1 times in x\.py, not 2"):
        apply(MUTANT._replace(edits=(Edit("a", "b", 2),)), "a")


def test_apply_makes_all_edits():
    assert apply(MUTANT._replace(edits=(Edit("a", "b"), Edit("c", "d"))), "ac") == "bd"
