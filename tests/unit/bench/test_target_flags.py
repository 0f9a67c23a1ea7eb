"""From flags to targets: what goes with every request, and to whom."""

import argparse

import pytest
from openai_server import OpenAiServer, openai_server, words
from router_bench import bench

from pdserve.bench.target import IdPrompt, TextPrompt, TextScale, TokenRange
from pdserve.bench.timeline import Timeline
from pdserve.cli.bench_targets import add_target_flags, load_targets
from pdserve.planner.slo import Slo

SLO = Slo(ttft_s=0.5, tpot_s=0.05)


def targets(*flags: str, conversing: bool = False):
    parser = argparse.ArgumentParser()
    add_target_flags(parser)
    arguments = parser.parse_args(flags, argparse.Namespace(timeout_s=20.0))
    return load_targets(arguments, SLO, conversing=conversing)


async def ask(*flags: str, conversing: bool = False):
    """What the first target says of itself when it is asked by these flags."""
    target, *others = targets(*flags, conversing=conversing)
    facts = await target.prepare()
    prompt = IdPrompt([5, 6]) if isinstance(facts.prompts, TokenRange) else TextPrompt(("one two",))
    await target.request(prompt, 2)(Timeline())
    for each in (target, *others):
        await each.close()
    return facts


def headers(server: OpenAiServer) -> dict[str, str]:
    return {name.lower(): value for name, value in server.headers[-1].items()}


async def test_prompts_are_ids_where_that_works() -> None:
    async with openai_server(words) as server:
        url = f"--url={server.url}"
        assert isinstance((await ask(url)).prompts, TokenRange)
        assert (await ask(url, "--token-ids=7-99")).prompts == TokenRange(7, 99)
        for flags in ([url, "--api=chat"], [url, "--prompts=text"]):
            assert isinstance((await ask(*flags)).prompts, TextScale)
        assert isinstance((await ask(url, conversing=True)).prompts, TextScale)
        ids = await ask(url, "--prompts=ids", conversing=True)
        assert isinstance(ids.prompts, TokenRange)
    assert server.requests[0]["model"] == "scripted"


async def test_slos_and_temperature_go_with_every_request() -> None:
    async with openai_server(words) as server:
        await ask(f"--url={server.url}", "--send-slo=hard", "--temperature=0.7", "--model=x")
        sent = headers(server)
        assert sent["x-pdserve-ttft-ms"] == "500"
        assert sent["x-pdserve-tpot-ms"] == "50"
        assert sent["x-pdserve-slo-hard"] == "1"
        assert server.requests[-1]["temperature"] == 0.7
        assert server.requests[-1]["model"] == "x"
        await ask(f"--url={server.url}")
        assert not [name for name in headers(server) if name.startswith("x-pdserve")]


async def test_a_key_goes_to_the_target_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSERVE_API_KEY", "one-of-ours")
    async with openai_server(words) as server, openai_server(words) as other:
        first, second = targets(f"--url={server.url}", f"--compare={other.url}")
        await first.prepare()
        await second.prepare()
        assert headers(server)["authorization"] == "Bearer one-of-ours"
        assert "authorization" not in headers(other)
        await second.close()
        monkeypatch.setenv("PDSERVE_COMPARE_API_KEY", "one-of-theirs")
        _, second = targets(f"--url={server.url}", f"--compare={other.url}")
        await second.prepare()
        assert headers(other)["authorization"] == "Bearer one-of-theirs"
        await first.close()
        await second.close()


async def test_a_router_may_be_compared_with_its_own_http_api() -> None:
    async with bench() as it:
        first, second = targets(f"--router={it.router.address}", f"--compare={it.url}/v1")
        assert (first.name, second.name) == (it.router.address, f"{it.url}/v1")
        assert (await first.prepare()).model == "tiny"
        await first.close()
        await second.close()
