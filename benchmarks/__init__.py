"""Benchmarks: each prints a table and writes JSON; machines are noisy, so ratios in one run."""
