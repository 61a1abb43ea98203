"""What the makers of some GPUs say these can do at best."""

from typing import Final, Literal, NamedTuple

Unit = Literal["float64", "float32", "tensor"]


class Device(NamedTuple):
    """A GPU, by its data sheet.

    Attributes
    ----------
    name : str
    architecture : str
        As compilers call it: "sm_80".
    float32, float64 : float
        Floating-point operations a second outside of the tensor cores.
    tensor : float
        The same in the tensor cores: float16 in, float32 sums, no sparsity.
    bandwidth : float
        Bytes a second between the GPU and its memory.
    source : str
        Where the figures stand.
    """

    name: str
    architecture: str
    float32: float
    float64: float
    tensor: float
    bandwidth: float
    source: str


DEVICES: Final = (
    Device(
        "T4",
        "sm_75",
        float32=8.1e12,
        float64=8.1e12 / 32,
        tensor=65e12,
        bandwidth=320e9,
        source="NVIDIA T4 data sheet; float64 is 1/32 of float32 (Turing architecture white paper)",
    ),
    Device(
        "A100",
        "sm_80",
        float32=19.5e12,
        float64=9.7e12,
        tensor=312e12,
        bandwidth=2039e9,
        source="NVIDIA A100 data sheet, 80 GB SXM",
    ),
    Device(
        "RTX 4090",
        "sm_89",
        float32=82.6e12,
        float64=82.6e12 / 64,
        tensor=165.2e12,
        bandwidth=1008e9,
        source="NVIDIA Ada GPU architecture white paper, appendix A; float64 is 1/64 of float32",
    ),
    Device(
        "H100",
        "sm_90",
        float32=67e12,
        float64=34e12,
        tensor=989.4e12,
        bandwidth=3350e9,
        source="NVIDIA H100 data sheet, SXM; half of the tensor figure, which is with sparsity",
    ),
    Device(
        "B200",
        "sm_100",
        float32=75e12,
        float64=37e12,
        tensor=2250e12,
        bandwidth=7700e9,
        source="NVIDIA Blackwell data sheet, HGX B200; half of the tensor figure, likewise",
    ),
)
