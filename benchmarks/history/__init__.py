"""Benchmarks for asv: how npbert's speed and memory change from commit to commit."""
