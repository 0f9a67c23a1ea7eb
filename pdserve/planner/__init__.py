"""How many instances of each phase, with which parallelism, and where; judged by simulation."""
