"""Instances that are listed and cannot be reached."""

from services.router import watcher
from tests.unit.router.router_bench import bench


async def test_an_instance_that_is_down_costs_few_calls(monkeypatch):
    """Each call that fails for want of a connection costs gRPC memory for good."""
    calls, looks = [], []
    opened, renewed = watcher.Watcher._open, watcher.Watcher._renew

    def counted_open(self, channel):
        calls.append(self.address.name)
        return opened(self, channel)

    def counted_renew(self, channel):
        looks.append(self.address.name)
        return renewed(self, channel)

    monkeypatch.setattr(watcher.Watcher, "_open", counted_open)
    monkeypatch.setattr(watcher.Watcher, "_renew", counted_renew)
    monkeypatch.setattr(watcher, "_RECONNECT_PAUSE_S", 0.001)
    async with bench(decode=2) as router:
        down = router.decode[1]
        await down.kill()
        await router.until_state(down, "down")
        looks.clear()
        calls.clear()
        await router.until(lambda: looks.count(down.address.name) >= 100)
        assert calls.count(down.address.name) <= 3
        await down.start()
        await router.until_state(down, "up")
