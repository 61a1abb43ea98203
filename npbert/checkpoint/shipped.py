"""The models that come with npbert: directories in ``npbert/models``."""

from pathlib import Path
from typing import Final

NPBERT_TINY: Final = "npbert-tiny"  # fills masks; see npbert.recipes.npbert_tiny
SHIPPED_MODELS: Final = (NPBERT_TINY,)
SHIPPED_DIRECTORY: Final = Path(__file__).parent.parent / "models"


def find_shipped_model(name: str) -> Path:
    """Return the directory of a model that comes with npbert.

    Parameters
    ----------
    name : str
        One of `SHIPPED_MODELS`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileNotFoundError
        If there is no such model, or this installation lacks it.
    """
    if name not in SHIPPED_MODELS:
        raise FileNotFoundError(f"{name}: npbert ships no such model, only {', '.join(SHIPPED_MODELS)}")
    directory = SHIPPED_DIRECTORY / name
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory; this installation of npbert is not whole")
    return directory
