"""Write npbert/tokenizer/unicode_tables.py by asking the `tokenizers` library about every code point.

    python tests/golden/make_unicode_tables.py

Needs `tokenizers`. The tables cannot be taken from Python's `unicodedata`: the library's Rust crates
carry tables of several Unicode versions of their own, and Python's change with the Python version.
"""

import unicodedata
from pathlib import Path

import tokenizers
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TARGET = Path(__file__).parents[2] / "npbert" / "tokenizer" / "unicode_tables.py"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]

# Python 3.10 knows Unicode 13. Cased letters that came later
# are listed in full, so that the answer does not depend on the Python that runs.
NEW_CASED_BLOCKS = [
    (0x1C89, 0x1C8A),
    (0x2C2F, 0x2C2F),
    (0xA7C0, 0xA7C0),
    (0xA7CB, 0xA7DC),
    (0x10570, 0x105BC),
    (0x10D50, 0x10D85),
    (0x16EA0, 0x16ED3),
]

# Canonical decompositions that came with Unicode 10 to 16, after the library's table.
NEW_DECOMPOSITIONS = [
    *[0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7, 0x113C8, 0x11938],
    *range(0x16121, 0x16129),
    *range(0x16D68, 0x16D6B),
]

HEADER = '''"""What the `tokenizers` library takes every Unicode code point for.

Written by tests/golden/make_unicode_tables.py from `tokenizers` {version}; do not edit by hand.

Python's `unicodedata` cannot stand in for these tables. The library's Rust crates carry their own:
general categories of about Unicode 8, decompositions of about Unicode 9, lower case of the Rust
compiler's Unicode 17. Python's are Unicode 13 in Python 3.10 and newer in each later one. A tokenizer
that follows the running Python would give different ids for the same text on different machines.

A table is text: code points in hexadecimal, a range as first-last. `normalization.CodePoints` reads it.
"""
'''


def runs(code_points: set[int]) -> list[tuple[int, int]]:
    """Return sorted (first, last) ranges that cover exactly these code points."""
    result: list[tuple[int, int]] = []
    for code_point in sorted(code_points):
        if result and result[-1][1] == code_point - 1:
            result[-1] = (result[-1][0], code_point)
        else:
            result.append((code_point, code_point))
    return result


def table(name: str, comment: str, code_points: set[int]) -> str:
    """Return the Python source of one table, lines at most 100 characters long."""
    items = [f"{first:X}" if first == last else f"{first:X}-{last:X}" for first, last in runs(code_points)]
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > 98:
            lines.append(line.rstrip())
            line = ""
        line += item + " "
    lines.append(line.rstrip())
    body = "\n    ".join(lines)
    return f'\n# {comment}\n{name} = """\n    {body}\n"""\n'


def main() -> None:
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    clean = BertNormalizer(**off | {"clean_text": True}).normalize_str
    space_cjk = BertNormalizer(**off | {"handle_chinese_chars": True}).normalize_str
    strip = BertNormalizer(**off | {"strip_accents": True}).normalize_str
    lower = BertNormalizer(**off | {"lowercase": True}).normalize_str
    nfd = NFD().normalize_str
    split = BertPreTokenizer().pre_tokenize_str

    removed = {c for c in CODE_POINTS if clean(chr(c)) == ""}
    cjk = {c for c in CODE_POINTS if space_cjk(chr(c)) != chr(c)}
    marks = {c for c in CODE_POINTS if strip(chr(c)) == ""}
    parts = {c: len(split(f"a{chr(c)}a")) for c in CODE_POINTS}
    whitespace = {c for c in CODE_POINTS if parts[c] == 2}
    punctuation = {c for c in CODE_POINTS if parts[c] == 3}
    # U+0334 has the lowest combining class (1) and U+0345 the highest (240): a character that stays
    # on its side of both is a starter, unless it is of one of these two classes (then it is a mark).
    kept_non_starters = {
        chr(c)
        for c in CODE_POINTS
        if c not in marks
        and nfd(chr(c)) == chr(c)
        and (nfd(chr(c) + "\u0334") != chr(c) + "\u0334" or nfd("\u0345" + chr(c)) != "\u0345" + chr(c))
    }
    reordered = {c for c in CODE_POINTS if not kept_non_starters.isdisjoint(nfd(chr(c)))}
    undecomposed = {c for c in NEW_DECOMPOSITIONS if nfd(chr(c)) == chr(c)}
    known = {
        c
        for c in CODE_POINTS
        if unicodedata.normalize("NFD", chr(c)) != chr(c)
        and nfd(chr(c)) != unicodedata.normalize("NFD", chr(c))
    }
    assert known <= undecomposed, "a decomposition differs that NEW_DECOMPOSITIONS does not list"
    new_cased = {
        c: ord(lower(chr(c)))
        for first, last in NEW_CASED_BLOCKS
        for c in range(first, last + 1)
        if lower(chr(c)) != chr(c)
    }
    differing = {c for c in CODE_POINTS if lower(chr(c)) != chr(c).lower()}
    assert differing <= new_cased.keys(), "a lower case differs that NEW_CASED_BLOCKS does not cover"

    source = HEADER.replace("{version}", tokenizers.__version__)
    source += table("REMOVED", "Dropped by cleaning: NUL, U+FFFD, control, format, private use.", removed)
    source += table("WHITESPACE", "Separates words (the White_Space property).", whitespace)
    source += table("CJK", "Gets a space on both sides. The gap at 2B820-2B91F is the library's own.", cjk)
    source += table("PUNCTUATION", "Is a word of its own: ASCII symbols and the P* categories.", punctuation)
    source += table("MARKS", "Dropped by accent stripping (category Mn).", marks)
    source += table(
        "REORDERED",
        "Is or decomposes to a non-starter (combining class above 0) that accent stripping keeps.",
        reordered,
    )
    source += table("UNDECOMPOSED", "Newer than the library's decompositions: left whole.", undecomposed)
    source += "\n# Lower case of letters newer than Unicode 13: (first, last, distance to the lower case).\n"
    source += "NEW_LOWER_CASE = (\n"
    for first, last, distance in case_ranges(new_cased):
        source += f"    (0x{first:04X}, 0x{last:04X}, {distance}),\n"
    source += ")\n"
    TARGET.write_text(source, encoding="utf-8")
    print(f"wrote {TARGET}: {len(source)} characters")


def case_ranges(lower_case: dict[int, int]) -> list[tuple[int, int, int]]:
    """Return (first, last, distance) ranges in which the lower case lies at one distance."""
    result: list[tuple[int, int, int]] = []
    for code_point, lowered in sorted(lower_case.items()):
        distance = lowered - code_point
        if result and result[-1][1:] == (code_point - 1, distance):
            result[-1] = (result[-1][0], code_point, distance)
        else:
            result.append((code_point, code_point, distance))
    return result


if __name__ == "__main__":
    main()
