"""Reading a corpus as documents."""

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data import documents as module
from npbert.data.documents import BEGINNING, Place, read_documents

# What a line may hold: anything but line ends, a BOM and the halves of characters. Not only white space.
SENTENCES = st.text(
    st.characters(exclude_characters="\r\n\N{ZERO WIDTH NO-BREAK SPACE}", exclude_categories=["Cs"]),
    min_size=1,
    max_size=30,
).filter(str.strip)
DOCUMENTS = st.lists(st.lists(SENTENCES, min_size=1, max_size=5), max_size=8)


@pytest.fixture
def write(tmp_path):
    """Write a file, and return its path."""

    def writing(contents: str | bytes, name: str = "corpus.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return path

    return writing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for property tests, whose examples overwrite each other's files."""
    return tmp_path_factory.mktemp("documents")


def sentences(*paths: Path, **options) -> list[list[str]]:
    return [document.sentences for document in read_documents(paths, **options)]


class TestPlainText:
    @given(expected=DOCUMENTS, line_end=st.sampled_from(["\n", "\r\n"]), mark=st.booleans())
    def test_any_documents(self, folder, expected, line_end, mark):
        text = (line_end * 2).join(line_end.join(document) for document in expected)
        path = folder / "corpus.txt"
        path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
        assert sentences(path) == expected

    @pytest.mark.parametrize(
        "text",
        ["a\nb\n\nc", "a\nb\n\nc\n", "\n\na\nb\n\n\n\nc\n\n", "a\nb\n \t\r\nc\n", "a\nb\n\u3000\nc"],
        ids=["no last line end", "last line end", "many empty lines", "white space", "wide space"],
    )
    def test_empty_lines(self, write, text):
        assert sentences(write(text)) == [["a", "b"], ["c"]]

    @pytest.mark.parametrize("text", ["", "\n", " \n\r\n\n", "\N{ZERO WIDTH NO-BREAK SPACE}"])
    def test_no_document(self, write, text):
        assert sentences(write(text)) == []

    def test_only_line_feeds_end_a_line(self, write):
        assert sentences(write("a\rb\x0bc\x0cd\x85e\u2028f")) == [["a\rb\x0bc\x0cd\x85e\u2028f"]]

    def test_a_file_ends_a_document(self, write):
        assert sentences(write("a\nb", "1.txt"), write("c\n", "2.txt")) == [["a", "b"], ["c"]]

    def test_a_long_document_is_read_as_several(self, write):
        path = write("aaaa\nbbbb\ncccc\ndddd\n\neeee\n")
        assert sentences(path, max_bytes=10) == [["aaaa", "bbbb"], ["cccc", "dddd"], ["eeee"]]
        assert sentences(path, max_bytes=9) == [["aaaa"], ["bbbb"], ["cccc"], ["dddd"], ["eeee"]]

    def test_a_long_line_is_cut_at_white_space(self, write):
        path = write("one two\tthree four\nfive\n")
        assert sentences(path, max_bytes=9) == [["one two\t"], ["three "], ["four"], ["five"]]

    @given(text=st.text(st.sampled_from("aé語🙂"), min_size=1, max_size=50), max_bytes=st.integers(4, 20))
    def test_a_long_word_is_cut_between_characters(self, folder, text, max_bytes):
        path = folder / "word.txt"
        path.write_text(text, encoding="utf-8")
        pieces = [sentence for document in sentences(path, max_bytes=max_bytes) for sentence in document]
        assert "".join(pieces) == text
        assert max(len(piece.encode()) for piece in pieces) <= max_bytes
        # No piece is shorter than it needs be: the next character would not have fitted.
        assert all(len(piece.encode()) > max_bytes - 5 for piece in pieces[:-1])

    @pytest.mark.parametrize(
        "text", ["word " * 400_000, "word\n" * 400_000, "w" * 2_000_000, " " * 2_000_000]
    )
    def test_memory_is_bounded(self, write, text):
        path = write(text)
        tracemalloc.start()
        try:
            size = sum(
                len("".join(document.sentences)) for document in read_documents([path], max_bytes=4096)
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size == len(text.replace("\n", "")) or not text.strip()
        assert peak < 500_000  # 2 MB are read; 819 sentences of a document are 60 kB of strings


class TestJsonLines:
    @given(expected=DOCUMENTS, spelling=st.sampled_from(["text", "sentences"]), ascii_only=st.booleans())
    def test_any_documents(self, folder, expected, spelling, ascii_only):
        path = folder / "corpus.jsonl"
        lines = [
            json.dumps(
                {"id": 3, spelling: "\n".join(document) if spelling == "text" else document},
                ensure_ascii=ascii_only,
            )
            for document in expected
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        assert sentences(path) == expected

    def test_what_is_empty_is_left_out(self, write):
        text = '{"text": "a\\n\\n \\nb"}\n\n{"text": ""}\n{"sentences": []}\n{"sentences": ["c", " "]}\r\n'
        assert sentences(write(text, "corpus.JSONL")) == [["a", "b"], ["c"]]

    def test_long_documents_and_sentences(self, write):
        path = write('{"sentences": ["aaa", "bb", "cccccccc"]}\n{"text": "d"}', "corpus.jsonl")
        found = list(read_documents([path], max_bytes=5))
        assert [document.sentences for document in found] == [["aaa", "bb"], ["ccccc"], ["ccc"], ["d"]]
        assert [document.place for document in found] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 41, 0)]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "a"', "line 2: column 13: not JSON: Expecting ',' delimiter"),
            ("  plain text", "line 2: column 3: not JSON: Expecting value"),
            ("[" * 100_000, "line 2: not JSON that can be read: maximum recursion depth"),
            ('{"text": 1' + "0" * 5000 + "}", "line 2: not JSON that can be read: Exceeds the limit"),
            ('["a"]', """line 2: '["a"]' is not {"text": "..."} or {"sentences": ["...", "..."]}"""),
            ('{"txt": "a"}', """line 2: '{"txt": "a"}' is not {"text": "..."}"""),
            ('{"text": ["a"]}', """line 2: '{"text": ["a"]}' is not"""),
            ('{"sentences": ["a", 3]}', """line 2: '{"sentences": ["a", 3]}' is not"""),
            ('{"sentences": "a"}', """line 2: '{"sentences": "a"}' is not"""),
            ('{"text": "\\ud83d"}', r"line 2: '\ud83d' has half of a character"),
        ],
    )
    def test_what_is_wrong(self, write, line, message):
        path = write(f'{{"text": "fine"}}\n{line}\n', "corpus.jsonl")
        with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {message}")):
            sentences(path)

    def test_a_line_that_is_too_long(self, write, monkeypatch):
        monkeypatch.setattr(module, "MAX_JSON_LINE", 40)
        fitting = '{"text": "' + "a" * 27 + '"}\n'  # 40 bytes
        assert sentences(write(fitting * 2, "fits.jsonl")) == [["a" * 27]] * 2
        path = write(fitting + fitting.replace("aa", "aaa", 1), "corpus.jsonl")
        with pytest.raises(ValueError, match=re.escape(f"{path}: line 2: longer than 40 bytes")):
            sentences(path)


class TestPlaces:
    @given(
        expected=st.lists(DOCUMENTS, min_size=1, max_size=3),
        endings=st.lists(st.sampled_from(["txt", "jsonl"]), min_size=3, max_size=3),
        max_bytes=st.integers(4, 60),
    )
    def test_reading_starts_at_any_document(self, folder, expected, endings, max_bytes):
        paths = []
        for number, (documents, ending) in enumerate(zip(expected, endings, strict=False)):
            paths.append(folder / f"{number}.{ending}")
            text = (
                "\n\n".join("\n".join(document) for document in documents)
                if ending == "txt"
                else "\n".join(json.dumps({"sentences": document}) for document in documents)
            )
            paths[-1].write_text(text, encoding="utf-8")
        found = list(read_documents(paths, max_bytes=max_bytes))
        assert list(read_documents(paths, BEGINNING, max_bytes=max_bytes)) == found
        for number, document in enumerate(found):
            assert list(read_documents(paths, document.place, max_bytes=max_bytes)) == found[number:]

    def test_offsets_are_those_of_bytes(self, write):
        path = write("\N{ZERO WIDTH NO-BREAK SPACE}é\r\n\r\n語\n")
        assert [document.place for document in read_documents([path])] == [Place(0, 3), Place(0, 9)]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("contents", "where"),
        [
            (b"a\xff", "line 1, byte 2: 0xff"),
            (b"a\nb\n\ncd\xe9 e\n", "line 4, byte 3: 0xe9"),
            (b"\xff\xfea\x00", "line 1, byte 1: 0xff"),  # UTF-16
            (b"a\r\n\xef\xbb\r\n", "line 2, byte 1: 0xef"),  # a character that is not complete
            (b"a\n\xed\xa0\xbd\n", "line 2, byte 1: 0xed"),  # half of one
            (b"a\n" * (1 << 20) + b"b\x80", f"line {(1 << 20) + 1}, byte 2: 0x80"),
        ],
    )
    def test_broken_utf8(self, write, contents, where):
        path = write(contents)
        with pytest.raises(
            ValueError, match=re.escape(f"{path}: {where} is not UTF-8; convert the file first")
        ):
            sentences(path)

    def test_broken_utf8_in_json(self, write):
        path = write(b'{"text": "a"}\n{"text": "\xe9"}\n', "corpus.jsonl")
        with pytest.raises(ValueError, match=re.escape(f"{path}: line 2, byte 11: 0xe9 is not UTF-8")):
            sentences(path)

    def test_a_place_beyond_the_broken_line_is_counted_from_the_beginning(self, write):
        path = write(b"a\n\nb\nc\xff\n")
        with pytest.raises(ValueError, match="line 4, byte 2: 0xff"):
            list(read_documents([path], Place(0, 3)))

    def test_a_broken_piece_of_a_long_line(self, write):
        path = write(b"a\n" + b"word " * 20 + b"\xff")
        with pytest.raises(ValueError, match="line 2, byte 101: 0xff"):
            sentences(path, max_bytes=16)

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(
            ValueError, match=re.escape(f"{tmp_path / 'none.txt'}: no such file or directory")
        ):
            sentences(tmp_path / "none.txt")
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: is a directory")):
            sentences(tmp_path)
