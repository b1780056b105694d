"""Benchmarks: each prints what was measured beside a floor or a peer of the same run, as a ratio."""
