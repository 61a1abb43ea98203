"""The benchmark of the corpus reader measures what it says."""

from pathlib import Path

from benchmarks import bench_reader
from npbert.data.documents import read_documents


def test_corpora(tmp_path):
    path = tmp_path / "corpus.txt"
    counts = {}
    for shape in bench_reader.SHAPES:
        bench_reader.write_corpus(path, 1, shape)
        assert path.stat().st_size == bench_reader.MEGABYTE
        found = list(read_documents([path], max_bytes=1 << 21))
        counts[shape] = (len(found), len(found[0].sentences))
    assert counts["documents"][0] > 500
    assert counts["documents"][1] == 12
    assert counts["one document"][0] == 1
    assert counts["one document"][1] > 5000
    assert counts["one line"] == (1, 1)


def test_a_measurement(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # it puts its own folder before this
    assert bench_reader.main(["--megabytes", "1", "--stages", "documents", "blocks"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["corpus", "shape", "stage", "peak", "seconds"]
    assert [row.split()[3] for row in rows] == ["documents", "blocks"]
    peaks = [int(row.split()[4]) for row in rows]
    assert all(20 < peak < 200 for peak in peaks)  # megabytes; Python with NumPy takes 30
