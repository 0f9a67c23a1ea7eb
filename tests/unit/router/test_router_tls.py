"""A router whose links and doors speak TLS, over fake instances that do."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import openai
import pytest
from http_client import HELLO, Client
from router_bench import Bench, bench
from router_fakes import ANSWER, FakeInstance, Script

from pdserve import followed_file
from pdserve.cli.main import main
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from tests.doubles.issued_certificates import Authority, Issued


@pytest.fixture
def issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issued:
    monkeypatch.setattr(followed_file, "_POLL_S", 0.01)
    return Authority().issue(tmp_path / "files")


def trusting(issued: Issued, shown: Issued | None = None) -> aiohttp.TCPConnector:
    """Connections of an HTTP client; each request has a new one."""
    context = ssl.create_default_context(cafile=str(issued.ca))
    if shown:
        context.load_cert_chain(shown.cert, shown.key)
    return aiohttp.TCPConnector(ssl=context, force_close=True)


def status(it: Bench, fake: FakeInstance) -> router_pb2.InstanceStatus:
    statuses = it.router.fleet.status()
    return next(each for each in statuses if each.address == fake.address.address)


async def until_taken(it: Bench, connector: aiohttp.TCPConnector) -> None:
    """Returns once the HTTP API lets in whom it would not have let in before."""
    async with asyncio.timeout(20), aiohttp.ClientSession(connector=connector) as session:
        while True:
            try:
                await Client(it.url, session).get("/health")
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
            else:
                return


async def answer_over_http(it: Bench, connector: aiohttp.TCPConnector) -> str:
    async with aiohttp.ClientSession(connector=connector) as session:
        reply = await Client(it.url, session).complete()
        return reply.choices[0]["text"]


async def test_a_cluster_over_mutual_tls_serves(issued: Issued) -> None:
    async with bench(**issued.options()) as it:
        assert (await it.generate()).text == ANSWER
        assert it.url.startswith("https://")
        assert await answer_over_http(it, trusting(issued)) == ANSWER
        # Clients need no certificate over gRPC either.
        async with open_channel(it.router.address, issued.client(shown=False)) as channel:
            listed = router_pb2_grpc.InferenceStub(channel).ListModels(
                router_pb2.ListModelsRequest(), timeout=20
            )
            assert (await listed).models[0].ready


async def test_openai_s_client_over_https(issued: Issued) -> None:
    context = ssl.create_default_context(cafile=str(issued.ca))
    async with (
        bench(**issued.options()) as it,
        openai.DefaultAsyncHttpxClient(verify=context) as transport,
        openai.AsyncOpenAI(
            base_url=f"{it.url}/v1", api_key="none", max_retries=0, http_client=transport
        ) as client,
    ):
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(parts) == ANSWER


async def test_the_door_may_have_a_certificate_of_its_own(issued: Issued, tmp_path: Path) -> None:
    public = Authority().issue(tmp_path / "public")
    door = {"tls_door_cert": str(public.cert), "tls_door_key": str(public.key)}
    # With plain links, and with links of another authority.
    for options in (door, door | issued.options()):
        async with bench(**options) as it:
            assert (await it.generate()).text == ANSWER
            assert await answer_over_http(it, trusting(public)) == ANSWER
            with pytest.raises(aiohttp.ClientError):
                await answer_over_http(it, trusting(issued))


async def test_the_door_may_ask_for_certificates(issued: Issued, tmp_path: Path) -> None:
    stranger = Authority().issue(tmp_path / "stranger")
    async with bench(**issued.options(), tls_door_ca=str(issued.ca)) as it:
        assert (await it.generate()).text == ANSWER
        assert await answer_over_http(it, trusting(issued, issued)) == ANSWER
        for shown in (None, stranger):
            with pytest.raises(aiohttp.ClientError):
                await answer_over_http(it, trusting(issued, shown))


async def test_instances_that_speak_no_tls_are_down_and_say_why(issued: Issued) -> None:
    async with bench(**issued.options()) as it:
        (fake,) = it.prefill
        await fake.kill()
        fake.tls = None
        await fake.start()
        await it.until(lambda: status(it, fake).detail == "it speaks no TLS")
        assert it.state(fake) == "down"


async def test_rotation_reaches_doors_and_links_and_cuts_nothing(issued: Issued) -> None:
    """To another authority at once, which is the worst case: nothing old is trusted any more."""
    async with bench(**issued.options(), tls_door_ca=str(issued.ca)) as it:
        # The fakes' own, which nobody follows for them.
        it.aside.run(it.prefill[0].tls.follow())
        released = asyncio.Event()
        it.decode[0].scripts = [Script(before={5: released.wait})]
        running = it.aside.run(it.generate())
        await it.until(lambda: it.decode[0].running)
        before = trusting(issued, issued)

        Authority().issue(issued.cert.parent)
        await until_taken(it, trusting(issued, issued))
        with pytest.raises(aiohttp.ClientError):
            await answer_over_http(it, before)
        # What is connected stays, also for requests that come now.
        assert (await it.generate()).text == ANSWER

        (fake,) = it.prefill
        await fake.kill()
        await fake.start()
        incarnation = fake.report.info.incarnation
        await it.until(lambda: status(it, fake).report.info.incarnation == incarnation)
        assert (await it.generate()).text == ANSWER
        assert fake.requests
        released.set()
        assert (await running).text == ANSWER
        assert len(it.decode[0].requests) == 3, "a request was placed again"


async def test_commands_and_what_they_say_without_the_authority(
    issued: Issued, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bench(**issued.options()) as it:
        words = ("models", "--router", it.router.address)
        assert await asyncio.to_thread(main, [*words, "--tls-ca", str(issued.ca)]) == 0
        assert "tiny" in capsys.readouterr().out
        assert await asyncio.to_thread(main, words) == 1
        assert "it may want TLS" in capsys.readouterr().err
        stranger = Authority().issue(issued.ca.parent / "stranger")
        assert await asyncio.to_thread(main, [*words, "--tls-ca", str(stranger.ca)]) == 1
        assert "its certificate is refused" in capsys.readouterr().err
