"""Files that are wrong in themselves: each fault is reported by its name, never as a traceback."""

import pytest

from npbert.learn.checking import check_exercise
from npbert.learn.exercises import GELU, LAYERNORM, LINEAR
from npbert.learn.runner import check_files
from tests.learn.files import write, write_edited

LINE_BY_LINE = [
    ("dx", "(dy * slope", "syntax error", "never closed"),
    ("dx", "dy * sloppe", "unknown name", "sloppe"),
    ("dx", "dy @ slope[:2]", "exception", "ValueError"),
    ("dx", "1 / 0", "exception", "ZeroDivisionError"),
    ("dx", "gelu_backward(dy, cache)", "exception", "RecursionError"),
    ("dx", "exit()", "ends the program", "exit"),
]
GRADIENTS = [
    ("return dx", "return None", "returns None", "return"),
    ("return dx", "pass", "returns None", "return"),
    ("return dx", "return 3.0", "not an array", "float"),
    ("return dx", "return dx, dx", "wrong number of gradients", "2"),
    ("return dx", "return dx[..., None]", "wrong shape", "(3, 5, 1)"),
    ("return dx", "return dx.sum()", "wrong shape", "()"),
    ("return dx", "return dx.astype('float32')", "wrong dtype", "float32"),
    ("math.sqrt(2 * math.pi)  # (", "np.sqrt(2 * np.pi)  # (", "wrong dtype", "float64"),
    ("return dx", "return dx / 0", "not finite", "inf"),
    ("return dx", "dy *= slope\n    return dy", "changes its inputs", "cotangent"),
    ("return dx", "x *= 2\n    return dx", "changes its inputs", "x"),
    ("return dx", "gate *= 2\n    return dx", "changes its cache", "differ"),
    ("return dx", "return dx + np.random.rand()", "not deterministic", "differ"),
    ("return x * gate, (x, gate)", "return x * gate * 2, (x, gate)", "forward changed", "--reset"),
    ("return x * gate, (x, gate)", "return x @ gate, (x, gate)", "forward changed", "ValueError"),
    ("def gelu_backward", "def backward", "missing function", "gelu_backward"),
]


@pytest.mark.parametrize(("target", "value", "kind", "word"), LINE_BY_LINE)
def test_a_faulty_line(target, value, kind, word, tmp_path):
    path = write(tmp_path, GELU, {target: value})
    line = next(n for n, row in enumerate(path.read_text().splitlines(), 1) if f"= {value}" in row)
    problem = check_exercise(GELU, path).problem
    assert (problem.kind, problem.line) == (kind, line)
    assert word in problem.message
    assert value in problem.source


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("old", "new", "kind", "word"), GRADIENTS)
def test_no_gradients(old, new, kind, word, tmp_path):
    result = check_exercise(GELU, write_edited(tmp_path, GELU, old, new))
    assert (result.status, result.problem.kind) == ("broken", kind)
    assert word in result.problem.message


def test_broadcast_gradient(tmp_path):
    """dbias as it comes, not summed: it has the shape of dy."""
    result = check_exercise(LAYERNORM, write(tmp_path, LAYERNORM, {"dbias": "dy"}))
    assert result.problem.kind == "wrong shape"
    assert "bias: gradient (2, 3, 5), argument (5,)" in result.problem.message


@pytest.mark.parametrize(
    ("content", "kind", "word"),
    [
        (b"", "missing function", "linear_forward"),
        (b"x = 1\n", "missing function", "linear_forward"),
        (b"\xff\xfe", "unreadable file", "UTF-8"),
        (b"import no_such_module\n", "exception", "no_such_module"),
        (b"def f(:\n", "syntax error", ""),
        (b"x = '\x00'\n", "syntax error", "null"),
        (b"raise KeyboardInterrupt\n", "exception", "KeyboardInterrupt"),
        (b"linear_forward = linear_backward = 3\n", "missing function", "linear_forward"),
    ],
)
def test_no_exercise_in_the_file(content, kind, word, tmp_path):
    path = tmp_path / "linear.py"
    path.write_bytes(content)
    result = check_exercise(LINEAR, path)
    assert (result.status, result.problem.kind) == ("broken", kind)
    assert word in result.problem.message


def test_a_directory_in_its_place(tmp_path):
    (tmp_path / "linear.py").mkdir()
    assert check_exercise(LINEAR, tmp_path / "linear.py").problem.kind == "unreadable file"


def test_processes_that_do_not_come_back(tmp_path):
    """A loop without end and a crash are told apart, and the files after them are checked all the same."""
    write(tmp_path, LINEAR, {"dx": "0\n    while True:\n        pass"})
    write(tmp_path, GELU, {"dx": "__import__('os')._exit(7)"})
    write(tmp_path, LAYERNORM)
    hung, crashed, solved = check_files(tmp_path, ["linear", "gelu", "layernorm"], time_limit=2)
    assert hung.problem.kind == "time limit"
    assert "2 s" in hung.problem.message
    assert hung.problem.source in ("while True:", "pass  # (..., in)")
    assert crashed.problem.kind == "ends the process"
    assert "exit code 7" in crashed.problem.message
    assert solved.solved


def test_what_a_file_prints_and_reads(tmp_path):
    """Output is kept apart from npbert's own; without end, its beginning is. There is nothing to be read."""
    write(tmp_path, LINEAR, {"dx": "dy @ weight\n    print('dx', 'x' * 9999)"})
    write(tmp_path, GELU, {"dx": "dy * float(input())"})
    printed, reads = check_files(tmp_path, ["linear", "gelu"])
    assert printed.solved
    assert printed.printed.startswith("dx xxx")
    assert len(printed.printed) < 10_000
    assert reads.problem.message.startswith("EOFError")


def test_the_learners_files_do_not_shadow_modules(tmp_path, monkeypatch):
    """Neither from the directory of the files nor from the current one."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, LINEAR)
    assert check_files(tmp_path, ["linear"])[0].solved
