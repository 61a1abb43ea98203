"""The CUDA engine: the names of :mod:`npbert.ops`, run by fused kernels where these pay."""
