"""The membership that DNS tells of; the resolver of the machine is stood in for."""

import socket
from typing import Any

import pytest

from pdserve.cluster.dns import DnsDiscovery, Service
from pdserve.cluster.instance import InstanceAddress, Role
from tests.unit.cluster.pods import members_of

P, D = Service(Role.PREFILL, "prefill.llm", 7000), Service(Role.DECODE, "decode.llm", 7001)


class Resolver:
    """Answers of `getaddrinfo` by name: addresses, or the code of an error."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str] | int] = {}
        self.asked = 0

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked += 1
        answer = self.answers[host]
        if isinstance(answer, int):
            raise socket.gaierror(answer, "it failed")
        return [(0, 0, 0, "", (address, port)) for address in answer]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr("pdserve.cluster.dns.socket.getaddrinfo", resolver.getaddrinfo)
    return resolver


async def test_each_address_behind_a_name_is_an_instance(resolver: Resolver) -> None:
    resolver.answers = {P.host: ["10.0.0.2", "10.0.0.1"], D.host: ["fd00::1"]}
    async with members_of(DnsDiscovery([P, D], 0.01)) as members:
        await members.until(lambda: bool(members.now))
        assert members.now == (
            InstanceAddress(Role.PREFILL, "10.0.0.1:7000", "prefill-10.0.0.1:7000"),
            InstanceAddress(Role.PREFILL, "10.0.0.2:7000", "prefill-10.0.0.2:7000"),
            InstanceAddress(Role.DECODE, "[fd00::1]:7001", "decode-[fd00::1]:7001"),
        )
        resolver.answers[P.host] = ["10.0.0.3", "10.0.0.2"]
        await members.until(lambda: members.now[0].address == "10.0.0.2:7000")
        assert len(members.seen) == 2, "an answer in another order is no change"


async def test_a_lookup_that_fails_leaves_the_last_answer(resolver: Resolver) -> None:
    resolver.answers = {P.host: ["10.0.0.1"], D.host: socket.EAI_AGAIN}
    async with members_of(DnsDiscovery([P, D], 0.01)) as members:
        await members.until(lambda: len(members.now) == 1)
        assert members.discovery.problem == "decode.llm: it failed"
        resolver.answers = {P.host: socket.EAI_AGAIN, D.host: ["10.0.0.2"]}
        await members.until(lambda: len(members.now) == 2)
        asked = resolver.asked
        await members.until(lambda: resolver.asked > asked + 20)
        assert len(members.now) == 2
        assert members.discovery.problem == "prefill.llm: it failed"


async def test_a_name_that_is_gone_for_good_has_nobody(resolver: Resolver) -> None:
    resolver.answers = {P.host: ["10.0.0.1"]}
    async with members_of(DnsDiscovery([P], 0.01)) as members:
        await members.until(lambda: len(members.now) == 1)
        resolver.answers = {P.host: socket.EAI_NONAME}
        await members.until(lambda: members.now == ())
        resolver.answers = {P.host: ["10.0.0.1"]}
        await members.until(lambda: len(members.now) == 1)
        assert members.discovery.problem == ""


async def test_the_resolver_of_the_machine_is_asked() -> None:
    async with members_of(DnsDiscovery([Service(Role.DECODE, "127.0.0.1", 7000)], 0.01)) as members:
        await members.until(lambda: bool(members.now))
        assert members.now[0].address == "127.0.0.1:7000"
