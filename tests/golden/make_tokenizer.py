"""Write tests/golden/tokenizer.json: what the `tokenizers` library makes of nasty texts.

    python tests/golden/make_tokenizer.py

Needs `tokenizers`. The default tests compare npbert with this file, so that they need no such library.
"""

import hashlib
import json
import random
from pathlib import Path

import tokenizers
from tokenizers import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TARGET = Path(__file__).parent / "tokenizer.json"
CODE_POINTS_PER_DIGEST = 4096

# Arguments of WordPieceTokenizer that change what it does to a text.
SETTINGS = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"clean_text": False},
    {"do_lower_case": False, "clean_text": False, "tokenize_chinese_chars": False},
]

TEXTS = [
    "",
    " ",
    "\n\t\r ",
    "Hello, world!",
    "The quick brown fox jumped over the lazy dog's unaffable runners.",
    "don't won't I'm they've we're it's (e.g.) U.S.A. 3,141.59 a_b-c/d\\e @you #tag $5 50% x=y^2 ~`|<>",
    "  leading,  double  and trailing spaces   ",
    "Très déjà vu: naïve façade, Ångström, señor, Łódź, Æsir, straße, ﬁne",
    "e\u0301 e\u0301\u0323 \u0301start a\u0323\u0301\u0331b",
    "İstanbul DİYARBAKIR ıIiİ ẞß ΑΣ ΟΔΟΣ Σ ΣΑΣ ς K Å",
    "Привет, мир! Ёлка й",
    "مَرْحَبًا بِالعَالَم؟ שָׁלוֹם עוֹלָם",
    "नमस्ते दुनिया। কেমন আছেন ภาษาไทย สวัสดี",
    "한국어 문장입니다. 각 가나다 ㄱㄴㄷ",
    "日本語のテキスト、カタカナ。ガギグ ｶﾞ",
    "中文没有空格abc中文 㐀𠀀𪜀𫠠鿿豈更車",
    "😀 👍🏽 👩‍👩‍👧‍👦 🇫🇷 ☺️ a😀b",
    "nul\x00 bell\x07 bs\x08 esc\x1b[0m vt\x0b ff\x0c del\x7f nel\x85 fs\x1cgs\x1drs\x1eus\x1f x",
    "rep\ufffdlace zwsp\u200bzwnj\u200czwj\u200d bom\ufeff shy\u00ad lrm\u200e pua\ue000 non\ufffe",
    "nbsp\u00a0thin\u2009em\u2003line\u2028para\u2029narrow\u202fmath\u205fideo\u3000ogham\u1680mvs\u180eend",
    "«guillemets» “quotes” ‘single’ – dash — em… ¿qué? ¡no! § ¶ · „low‟ ‹x› ⸘ ⸮ ⹏ 、 。 ！ ？ ～ ￥ € £ ©",
    "Paris is the [MASK] of France.",
    "[CLS] a [SEP] b [SEP] [PAD] [UNK]",
    "[mask] [Mask] [MASK ] [ MASK] [MASK[MASK]] x[MASK]y [MASK]\u0301 \u0301[SEP]",
    "[CLS",
    "##ing ing ##",
    "[unused1] [unused99]",
    "a" * 100 + " " + "b" * 101 + " end",
    "ab" * 5000,
    "\u00e9" * 100 + " " + "e\u0301" * 100 + " \u0130" * 3,
    "\uac00" * 50,
    "!" * 30,
    "\U0001d15e\U0001d15f\u0334x \U0001d1bb\U0001d1bf\u031b\u0345 \U0001d165\u0334",
    "o\u302e\u0301\u0323 \u302e\u0344",
    "\u08d4\u0301\u0323 x\u1b44\u0300 \u1e000\U0001e000\u0301\u0316 \U00011938 \U000105c9 \U00016121",
    "\u1c89 \ua7cb \ua7dc \U00010d50 \U00016ea0 \U00010570 \u2c2f Ꭰ ꭰ Ა ა",
    "\U000e0001\U000e0041tag \U0010ffff \U0010fffd \U000f0000",
]

PAIRS = [
    ("How are you?", "I am fine, thanks a lot for asking me."),
    ("", ""),
    ("a", ""),
    ("", "b"),
    ("one [SEP] two", "three [MASK]"),
    ("é\u0301 İ 中", "中文 \u302e\u0301 x"),
    ("a b c d e f g h i j", "k l m"),
    ("a b c", "k l m n o p q r s t"),
    ("a b c d e f", "g h i j k l"),
]

# Characters that random texts are drawn from, each list as likely as the others.
ALPHABETS = [
    list("abcdefinorstu"),
    list("ABCEIOU'.,-!?()[]#"),
    [" ", "\t", "\u00a0", "\u2028", "\u3000"],
    list("éÅñçİıßΣςЙöệ"),
    [chr(c) for c in (*range(0x300, 0x370), 0x5B0, 0x64B, 0x302E, 0x302F, 0x3099, 0x8D4, 0x1DFB)],
    list("中文字日本豈𠀀"),
    list("가각힣ㄱがガ"),
    ["\x00", "\x07", "\x1c", "\x7f", "\x85", "\u00ad", "\u200b", "\u200d", "\ufeff", "\ufffd", "\ue000"],
    ["😀", "👍", "🏽", "☺", "\ufe0f", "🇫"],
    ["[MASK]", "[SEP]", "[mask]", "##", "ing"],
    ["\U0001d15e", "\U0001d1bb", "\U0001d165", "\u0344", "\u1b44", "\U0001e000"],
]


def random_text(random_source: random.Random) -> str:
    """Return a text of up to 25 characters from all alphabets."""
    length = random_source.randint(1, 25)
    return "".join(random_source.choice(random_source.choice(ALPHABETS)) for _ in range(length))


def peer_arguments(settings: dict) -> dict:
    """Translate arguments of WordPieceTokenizer to those of BertNormalizer."""
    return {
        "lowercase": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        "clean_text": settings.get("clean_text", True),
    }


def truncations(pair: str | None) -> list[int | None]:
    """Return the values of max_length to try; all that matter for the pairs with plain words."""
    return [None, 6] if pair is None or pair not in [second for _, second in PAIRS] else [None, *range(3, 14)]


def vocabulary(texts: list[str], random_source: random.Random) -> list[str]:
    """Return a vocabulary that splits the texts in many ways and leaves some words unknown."""
    words: set[str] = set()
    for settings in SETTINGS:
        normalize = BertNormalizer(**peer_arguments(settings)).normalize_str
        for text in texts:
            words |= {word for word, _ in BertPreTokenizer().pre_tokenize_str(normalize(text))}
    short_words = sorted(word for word in words if len(word) < 20)
    characters = sorted({character for word in words for character in word})
    tokens = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##ing", "##ffa", "##ble", "un"]
    tokens += [token for token in characters if random_source.random() < 0.85]
    tokens += [f"##{token}" for token in characters if random_source.random() < 0.85]
    tokens += [word for word in short_words if random_source.random() < 0.15]
    tokens += [f"##{word[2:]}" for word in short_words if len(word) > 4 and random_source.random() < 0.15]
    return list(dict.fromkeys(tokens))


def code_point_digests(settings: dict) -> list[str]:
    """Return a digest of the words that every code point makes between two letters, block by block."""
    normalize = BertNormalizer(**peer_arguments(settings)).normalize_str
    split = BertPreTokenizer().pre_tokenize_str
    digests = []
    for start in range(0, 0x110000, CODE_POINTS_PER_DIGEST):
        code_points = [c for c in range(start, start + CODE_POINTS_PER_DIGEST) if not 0xD800 <= c <= 0xDFFF]
        text = "".join(f"a{chr(code_point)}a" for code_point in code_points)
        words = [word for word, _ in split(normalize(text))]
        digests.append(hashlib.sha256(" ".join(words).encode()).hexdigest()[:8])
    return digests


def main() -> None:
    random_source = random.Random(0)
    inputs: list[tuple[str, str | None]] = [(text, None) for text in TEXTS]
    inputs += PAIRS
    inputs += [(random_text(random_source), None) for _ in range(40)]
    inputs += [(random_text(random_source), random_text(random_source)) for _ in range(20)]
    vocab = vocabulary([text for pair in inputs for text in pair if text is not None], random_source)

    cases = []
    decoded = []
    for number, settings in enumerate(SETTINGS):
        peer = BertWordPieceTokenizer(
            {token: index for index, token in enumerate(vocab)}, **peer_arguments(settings)
        )
        for text, pair in inputs:
            if number > 0 and len(text) > 1000:
                continue
            for max_length in truncations(pair) if number == 0 else [None]:
                peer.no_truncation()
                if max_length is not None:
                    peer.enable_truncation(max_length)
                add_special_tokens = max_length != 13
                encoding = peer.encode(text, pair, add_special_tokens=add_special_tokens)
                case = {"settings": number, "text": text, "pair": pair}
                case |= {"ids": encoding.ids, "offsets": encoding.offsets}
                if number == 0:
                    case |= {"max_length": max_length, "add_special_tokens": add_special_tokens}
                    case |= {"token_type_ids": encoding.type_ids}
                    case |= {"special_tokens_mask": encoding.special_tokens_mask}
                cases.append(case)
            if number == 0:
                with_special_tokens = peer.decode(encoding.ids, skip_special_tokens=False)
                decoded.append(
                    {"ids": encoding.ids, "text": peer.decode(encoding.ids), "whole": with_special_tokens}
                )
    golden = {
        "made_by": f"tests/golden/make_tokenizer.py, tokenizers {tokenizers.__version__}",
        "vocab": vocab,
        "settings": SETTINGS,
        "code_points_per_digest": CODE_POINTS_PER_DIGEST,
        # The first settings do everything to a text; the last but one, only accents stripped, uncleaned.
        "code_point_digests": [
            {"settings": settings, "digests": code_point_digests(settings)}
            for settings in ({}, {"do_lower_case": False, "strip_accents": True, "clean_text": False})
        ],
        "cases": cases,
        "decoded": decoded,
    }
    text = json.dumps(golden, separators=(",", ":"))
    for item in ('{"settings":', '{"ids":'):  # one a line, so that a change shows as one
        text = text.replace(item, f"\n{item}")
    TARGET.write_text(text + "\n", encoding="ascii")
    print(f"wrote {TARGET}: {len(cases)} cases, {len(vocab)} tokens, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
