"""Measures what the steps of an engine cost: the source of `pdserve.latency` profiles."""
