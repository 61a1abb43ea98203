"""What is known of the kernels without a GPU.

Three kinds of facts, never mixed. *Static*: what NVIDIA's compiler makes of a kernel for real architectures.
*Modelled*: the least time that a device's data sheet allows for an op. *Emulated*: which addresses a kernel's
text touches when it runs on a CPU. None is a measurement; `npbert.cuda.benchmark` makes those, on a device.

``npbert bench kernels --static`` prints them; `static_report` in `report.py` puts them together.
"""
