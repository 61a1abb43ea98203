"""What messages about data quote: values and lists of names, cut where they are long."""

from collections.abc import Sequence
from typing import Any, Final

SHOWN_CHARACTERS: Final = 60
SHOWN_NAMES: Final = 20


def shown(value: Any) -> str:
    """Spell a value, a long one not to its end.

    Examples
    --------
    >>> shown("it's"), len(shown("long" * 1000))
    ('"it\\'s"', 60)
    """
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def listed(names: Sequence[str]) -> str:
    """Spell some names: all of them, or the first few and a count.

    Examples
    --------
    >>> listed(["a", "b"]), listed([]), listed(["a"] * 100)[-15:]
    ("'a', 'b'", 'none', "'a' and 80 more")
    """
    if not names:
        return "none"
    text = ", ".join(map(shown, names[:SHOWN_NAMES]))
    return text if len(names) <= SHOWN_NAMES else f"{text} and {len(names) - SHOWN_NAMES} more"
