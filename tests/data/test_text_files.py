"""Reading whole text files."""

import bz2
import gzip

import pytest

from npbert.data.text_files import read_text

TEXT = "naïve\r\n\u65e5\u672c\n"


@pytest.mark.parametrize(
    ("name", "pack"), [("a.csv", bytes), ("a.csv.gz", gzip.compress), ("a.csv.bz2", bz2.compress)]
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_reads_plain_and_compressed(name, pack, mark, tmp_path):
    path = tmp_path / name
    path.write_bytes(pack((mark + TEXT).encode()))
    assert read_text(path) == read_text(str(path)) == TEXT


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.csv: no such file"):
        read_text(tmp_path / "missing.csv")


def test_directory(tmp_path):
    with pytest.raises(ValueError, match="a directory"):
        read_text(tmp_path)


@pytest.mark.parametrize(("name", "data"), [("a.csv", b""), ("a.csv.gz", gzip.compress(b""))])
def test_empty(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: empty"):
        read_text(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"fine\nnot \xff fine\n", "line 2, byte 5: 0xff is not UTF-8; .*iconv"),
        (b"cut short \xe6\x97", "line 1, byte 11: 0xe6 is not UTF-8"),
        ("utf-16".encode("utf-16"), "line 1, byte 1: 0xff is not UTF-8"),
        (b"a\nb\0c\n", "line 2, byte 2: a NUL"),
        ("utf-16".encode("utf-16-le"), "line 1, byte 2: a NUL.*utf-16"),
    ],
)
def test_what_is_no_text(data, message, tmp_path):
    path = tmp_path / "broken.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"broken\.csv: {message}"):
        read_text(path)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".gz", b"no gzip"),
        (".gz", gzip.compress(b"cut" * 100)[:-9]),
        (".gz", gzip.compress(b"changed" * 100)[:-8] + b"12345678"),
        (".bz2", b"no bzip"),
        (".bz2", bz2.compress(b"cut" * 100)[:-9]),
    ],
)
def test_damaged(suffix, data, tmp_path):
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.csv\{suffix}: not a whole \{suffix} file"):
        read_text(path)
