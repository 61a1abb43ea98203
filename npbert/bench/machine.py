"""What a benchmark runs on: processor, threads, linear algebra, versions."""

import os
import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npbert import __version__
from npbert.cpu.workers import usable_cpus, workers

# Settings of the environment that make NumPy's products slower or faster than a user's, or that decide the
# number of threads, which --threads does.
DISTURBING: Final = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
CPU_FACTS: Final = Path("/proc/cpuinfo")


class Machine(NamedTuple):
    """What a benchmark ran on.

    Attributes
    ----------
    cpu : str
        The processor's name.
    cores : int
        How many of its cores this process may use.
    threads : int
        How many of them every contender was given.
    load : float or None
        Processes that wanted to run in the minute before, on average: what else the machine was busy with.
    blas : tuple of str
        The libraries behind NumPy's products: name, version, kernels in use, threading.
    versions : dict of str to str
        Of Python, npbert, NumPy and the peers that are installed.
    started : str
        Date and time, UTC.
    """

    cpu: str
    cores: int
    threads: int
    load: float | None
    blas: tuple[str, ...]
    versions: dict[str, str]
    started: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**self._asdict(), "blas": list(self.blas)}


def describe_machine(threads: int, packages: Sequence[str] = ()) -> Machine:
    """Return what this process runs on.

    Parameters
    ----------
    threads : int
        How many the contenders are given.
    packages : sequence of str
        Names, as pip has them, of peers whose versions matter.
    """
    versions = {"python": platform.python_version(), "npbert": __version__, "numpy": np.__version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        cpu=_cpu(),
        cores=usable_cpus(),
        threads=threads,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        blas=_blas(),
        versions=versions,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def threads_of_numpy(count: int) -> Generator[None, None, None]:
    """Give npbert and NumPy's products so many threads inside a ``with`` block."""
    from threadpoolctl import threadpool_limits

    with workers(count), threadpool_limits(count, user_api="blas"):
        yield


def disturbing_settings(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that are set and must not be when something is measured.

    Examples
    --------
    >>> disturbing_settings({"OPENBLAS_CORETYPE": "Haswell", "HOME": "/"})
    ['OPENBLAS_CORETYPE']
    """
    return [name for name in DISTURBING if name in environment]


def _cpu() -> str:
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _blas() -> tuple[str, ...]:
    from threadpoolctl import threadpool_info

    return tuple(
        ", ".join(
            str(part)
            for part in (
                f"{library['internal_api']} {library['version']}",
                library.get("architecture") and f"{library['architecture']} kernels",
                library.get("threading_layer"),
            )
            if part
        )
        for library in threadpool_info()
        if library["user_api"] == "blas"
    )
