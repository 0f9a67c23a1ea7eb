"""Membership as DNS has it: the addresses behind the names of services.

Headless Services of Kubernetes are such names: one address for each pod. They should publish pods
that are not ready as well; else a draining instance is gone from DNS before its requests are.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pdserve.cluster.instance import InstanceAddress, Role

log = logging.getLogger(__name__)

_INTERVAL_S = 2.0
_PATIENCE_S = 5.0
# A name that is not there is believed after so many answers: DNS that restarts says so as well.
_BELIEVED = 3
_NOBODY = (socket.EAI_NONAME, socket.EAI_NODATA)


@dataclass(frozen=True, slots=True)
class Service:
    """A name behind which instances of one phase listen, all at one port."""

    role: Role
    host: str
    port: int


class DnsDiscovery:
    """The addresses (A and AAAA records) behind the names of `services`.

    `problem` says which names cannot be resolved, and why; empty: all can.
    """

    def __init__(self, services: Sequence[Service], interval_s: float = _INTERVAL_S) -> None:
        self._names = [_Name(each) for each in services]
        self._interval_s = interval_s

    @property
    def problem(self) -> str:
        """What may make the membership out of date."""
        return "; ".join(each.problem for each in self._names if each.problem)

    async def watch(self) -> AsyncGenerator[tuple[InstanceAddress, ...], None]:
        """The membership, and again after each change; it never ends.

        A name that cannot be resolved keeps its last addresses.
        """
        membership = None
        # One thread for each name: a lookup cannot be broken off, but it holds up only its own.
        threads = ThreadPoolExecutor(len(self._names), thread_name_prefix="dns")
        try:
            while True:
                await asyncio.gather(*(name.look_up(threads) for name in self._names))
                found = {each.address: each for name in self._names for each in name.instances}
                if membership != tuple(found.values()):
                    membership = tuple(found.values())
                    yield membership
                await asyncio.sleep(self._interval_s)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


class _Name:
    """A service with the addresses of the last lookup that had an answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lookup: asyncio.Future[list[str]] | None = None
        self._nobody = 0
        self.instances: list[InstanceAddress] = []
        self.problem = ""

    async def look_up(self, threads: ThreadPoolExecutor) -> None:
        """Takes a new answer; where there is none in time, the lookup goes on until the next."""
        host = self._service.host
        if self._lookup is None:
            loop = asyncio.get_running_loop()
            self._lookup = loop.run_in_executor(threads, _addresses, host, self._service.port)
        await asyncio.wait([self._lookup], timeout=_PATIENCE_S)
        if not self._lookup.done():
            self._complain(f"{host}: no answer in time")
            return
        lookup, self._lookup = self._lookup, None
        try:
            self._take(lookup.result())
        except OSError as error:
            self._nobody = self._nobody + 1 if error.errno in _NOBODY else 0
            if self._nobody >= _BELIEVED:
                self.instances = []
            self._complain(f"{host}: {error.strerror or error}")

    def _take(self, addresses: list[str]) -> None:
        role = self._service.role
        self._nobody = 0
        self.instances = [InstanceAddress(role, each, f"{role}-{each}") for each in addresses]
        self._complain("")

    def _complain(self, problem: str) -> None:
        """Logs what is wrong when that changes, and when nothing is any more."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            log.warning("a name cannot be resolved", extra={"detail": problem})
        else:
            log.info("%s is resolved again", self._service.host)


def _addresses(host: str, port: int) -> list[str]:
    """host:port of each address behind the name, sorted. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]
