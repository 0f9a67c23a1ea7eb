"""Leases run out in their time and not before."""

from pdserve.kv.lease import Leases


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_lease_expires_once():
    clock = Clock()
    leases = Leases(10, clock)
    leases.grant("a")
    clock.now += 9.9
    assert leases.expired() == []
    clock.now += 0.1
    assert leases.expired() == ["a"]
    assert leases.expired() == []
    assert len(leases) == 0


def test_renewal_starts_it_anew():
    clock = Clock()
    leases = Leases(10, clock)
    leases.grant("a")
    clock.now += 1
    leases.grant("b")
    clock.now += 8
    leases.renew("a")
    assert leases.next_expiry_s() == 2
    clock.now += 2
    assert leases.expired() == ["b"]
    assert leases.next_expiry_s() == 8


def test_what_was_not_granted_is_not_renewed():
    leases = Leases(10, Clock())
    leases.renew("a")
    leases.end("a")
    assert len(leases) == 0
    assert leases.next_expiry_s() is None


def test_an_ended_lease_does_not_expire():
    clock = Clock()
    leases = Leases(10, clock)
    leases.grant("a")
    leases.end("a")
    clock.now += 11
    assert leases.expired() == []
