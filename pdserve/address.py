"""Addresses as people write them."""

import re

_HOST_PORT = re.compile(r"(\[[^\[\]/\s]+\]|[^:\[\]/\s]+):([0-9]{1,5})")


def is_host_port(text: str) -> bool:
    """Whether `text` is host:port with a port of 1 to 65535; an IPv6 host is in brackets."""
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 1 <= int(match[2]) <= 65535
