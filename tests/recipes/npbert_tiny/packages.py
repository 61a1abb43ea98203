"""The files of the Debian packages, in small: a few synsets, two chapters, some entries of jargon."""

import gzip
import struct
from pathlib import Path

from npbert.recipes.npbert_tiny.king_james import HEADER_OFFSET, MAGIC

NOUNS = """\
  1 This is the licence, which is skipped.
100 03 n 01 entity 0 000 | that which is perceived to have its own distinct existence; "the entity"
101 05 n 01 animal 0 001 @ 100 n 0000 | a living being that moves
102 05 n 02 dog 0 domestic_dog 0 002 @ 101 n 0000 ~ 103 n 0000 | an animal that barks; "it barked"; "a dog."
103 05 n 02 sea_dog 0 Canis_maris 0 001 @ 102 n 0000 | large dog of the sea
104 15 n 02 Paris 0 City_of_Light 0 001 @i 100 n 0000 | the capital of France
105 21 n 01 gold 0 001 @ 100 n 0000 | (chemistry) a yellow metal, as in a gold medal
106 20 n 01 Rosaceae 0 001 @ 100 n 0000 | comprises roses and apples
107 12 n 01 joy 0 001 @ 100 n 0000 | great happiness
109 12 n 01 rejoicing 0 001 @ 107 n 0000 | feeling great joy
110 12 n 01 mirth 0 001 @ 107 n 0000 | noisy joy
111 18 n 01 ivan_the_dog 0 001 @i 102 n 0000 | the first dog
112 06 n 0a bar 0 bar1 0 bar2 0 bar3 0 bar4 0 bar5 0 bar6 0 bar7 0 bar8 0 bar9 0 001 @ 100 n 0000 | a rod
108 18 n 01 boor 0 001 @ 100 n 0000 | (ethnic slur) an offensive term for someone
"""
VERBS = """\
200 38 v 02 run 0 dash 0 001 @ 201 v 0000 01 + 02 00 | move fast; "don't run"
201 38 v 01 move 0 000 01 + 02 00 | change position
202 38 v 01 swarm 0 001 @ 201 v 0000 01 + 02 00 | (of bees) leave in large numbers
"""
ADJECTIVES = """\
300 00 a 01 short 0 001 & 301 a 0000 | having little length; "short hair"
301 00 s 02 abbreviated 0 brief(p) 0 001 & 300 a 0000 | (of clothing) very short; "a brief bikini"
302 00 a 01 tall 0 000 | (usually followed by `as') great in height
"""
ADVERBS = """\
400 02 r 01 deftly 0 001 \\ 300 a 0101 | in a deft manner; "she deftly removed it"- Anon.
"""

VERSES = (
    "Holy Bible.  Textfile 930105.\n",
    "Ge1:1 In the beginning God created the heaven and the earth.\nGe1:2 And the earth was with",
    "out form.\nGe2:1 Thus the heavens were finished.\nSSol1:1 The song of songs.\n",
)

JARGON = """\
00-database-short
     The Jargon File
zombie
 /zom'bee/, n.

    1. [Unix] A process that has died but has not yet gone. These can be seen in
    ps(1) listings occasionally, e.g. Unix ones. Compare {orphan}.

    x = 1;
        y = 2;

    2. A machine that has been cracked, {home box} or not. See http://www.example.org/.

zorch


    v. To attack with an “inverse heat sink”.
"""


def write_wordnet(directory: Path) -> None:
    """Write the data files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("noun", NOUNS), ("verb", VERBS), ("adj", ADJECTIVES), ("adv", ADVERBS)):
        (directory / f"data.{name}").write_text(text, encoding="utf-8")


def bible_data(parts: tuple[str, ...] = VERSES) -> bytes:
    """Return the compressed file; each part is a window, of fewer than 256 characters."""
    windows = [_literals(part.encode("ascii")) for part in parts]
    start = HEADER_OFFSET + 4 * (len(windows) + 3)
    offsets = [start]
    for window in windows:
        offsets.append(offsets[-1] + len(window))
    head = MAGIC.ljust(HEADER_OFFSET, b"\0") + struct.pack(
        f">{len(offsets) + 2}I", 65536, len(windows), *offsets
    )
    return head + b"".join(windows)


def _literals(text: bytes) -> bytes:
    """Compress as compress(1) might: LZW codes of nine bits, all of them for single bytes."""
    assert len(text) < 256  # then codes would have ten bits
    bits = sum(code << (9 * number) for number, code in enumerate(text))
    return bits.to_bytes(-(-9 * len(text) // 8), "little")


def write_packages(root: Path) -> None:
    """Write what the three packages hold."""
    write_wordnet(root / "usr/share/wordnet")
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/bible.data").write_bytes(bible_data())
    (root / "usr/share/dictd").mkdir(parents=True)
    (root / "usr/share/dictd/jargon.dict.dz").write_bytes(gzip.compress(JARGON.encode()))
