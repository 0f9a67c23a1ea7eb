"""Measurements that docs/benchmarks.md publishes: ratios, taken side by side in one run."""
