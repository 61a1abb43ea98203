"""Tests of `npbert.cuda`: kernels on the emulator or, with ``pytest --cuda``, on a device."""
