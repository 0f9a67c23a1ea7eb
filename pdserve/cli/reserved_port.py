"""A TCP port that nobody else gets while a child process comes up, and comes up again."""

import socket

from pdserve.rpc.server import check_port_is_free


class ReservedPort:
    """Holds `port` of `host` with a socket that never listens; 0 takes any free port.

    The kernel gives a port held this way to no other program by chance, yet lets one that names it
    and sets SO_REUSEADDR, as gRPC does, listen on it. Raises `ConfigError`, which
    names `option`, where it is in use.
    """

    def __init__(self, host: str, port: int = 0, *, option: str = "port") -> None:
        check_port_is_free(host, port, option=option)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Gives the port up."""
        self._socket.close()
