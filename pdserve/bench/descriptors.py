"""How many connections this process may open."""

import resource

# What a process needs besides connections.
_OTHERS = 64


def most_connections() -> int:
    """As many as the system allows: the soft limit of descriptors is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # systems with a lower limit of their own
            pass
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(1, soft - _OTHERS)
