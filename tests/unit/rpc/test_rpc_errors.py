"""Every error crosses a real connection whole: status, text and machine-readable detail."""

import asyncio

import grpc
import pytest
from grpc import aio

from pdserve import errors
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import (
    DETAIL_KEY,
    error_detail,
    from_rpc_error,
    servicer_method,
    status_code,
    translated,
)
from pdserve.rpc.server import RpcServer
from pdserve.rpc.v1 import prefill_pb2, prefill_pb2_grpc, types_pb2

EVERY_ERROR = errors.PdserveError.__subclasses__()
CODES = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModelError: grpc.StatusCode.NOT_FOUND,
    errors.UnknownRequestError: grpc.StatusCode.NOT_FOUND,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.StaleIncarnationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IncompatibleLayoutError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TransferError: grpc.StatusCode.ABORTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
DEADLINE_S = 30


class Failing(prefill_pb2_grpc.PrefillServicer):
    """Raises what the test puts in `error`, or never answers."""

    error = Exception()

    @servicer_method
    async def Release(self, request, context):  # noqa: N802
        raise self.error

    @servicer_method
    async def WatchLoad(self, request, context):  # noqa: N802
        await context.write(types_pb2.LoadReport(steps=1))
        raise self.error

    @servicer_method
    async def Drain(self, request, context):  # noqa: N802
        await asyncio.Event().wait()


@pytest.fixture
async def service():
    server, servicer = RpcServer("127.0.0.1", 0, ["pdserve.v1.Prefill"]), Failing()
    server.register(prefill_pb2_grpc.add_PrefillServicer_to_server, servicer)
    await server.start()
    async with open_channel(server.address) as channel:
        yield servicer, prefill_pb2_grpc.PrefillStub(channel)
    await server.stop(grace_s=0)


async def release(stub):
    return await stub.Release(prefill_pb2.ReleaseRequest(), timeout=DEADLINE_S)


@pytest.mark.parametrize("kind", EVERY_ERROR)
async def test_an_error_arrives_as_it_was_raised(service, kind):
    servicer, stub = service
    servicer.error = kind("wörds 100 %\n", field="top_p", limit="(0, 1]", retry_after_s=1.5)
    with pytest.raises(errors.PdserveError) as caught:
        async with translated():
            await release(stub)
    error = caught.value
    assert type(error) is kind
    assert str(error) == "wörds 100 %\n"
    assert (error.field, error.limit, error.retry_after_s) == ("top_p", "(0, 1]", 1.5)
    cause = error.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.code() is CODES.get(kind, grpc.StatusCode.INTERNAL) is status_code(error)


async def test_an_error_ends_a_stream_after_what_was_sent(service):
    servicer, stub = service
    servicer.error = errors.UnavailableError("draining")
    call = stub.WatchLoad(types_pb2.WatchLoadRequest(), timeout=DEADLINE_S)
    assert (await call.read()).steps == 1
    with pytest.raises(errors.UnavailableError, match="draining"):
        async with translated():
            await call.read()


@pytest.mark.parametrize("length", [5_000, 1_000_000])
async def test_a_text_that_quotes_much_is_shortened_not_lost(service, length):
    servicer, stub = service
    text = "no model " + "ü" * length
    servicer.error = errors.UnknownModelError(text, field="model", limit="x" * length)
    with pytest.raises(errors.UnknownModelError, match=r"^no model ü+…$") as caught:
        async with translated():
            await release(stub)
    assert caught.value.field == "model"
    assert len(str(caught.value)) < 2_000


async def test_plain_statuses_become_the_nearest_error():
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(errors.UnavailableError):
            async with translated():
                await release(prefill_pb2_grpc.PrefillStub(channel))


async def test_a_missed_deadline_is_a_deadline_error(service):
    _, stub = service
    with pytest.raises(errors.DeadlineError):
        async with translated():
            await stub.Drain(types_pb2.DrainRequest(), timeout=0.05)


async def test_a_bug_in_a_method_is_no_pdserve_error_of_a_kind(service):
    servicer, stub = service
    servicer.error = ZeroDivisionError("secret")
    with pytest.raises(errors.PdserveError) as caught:
        async with translated():
            await release(stub)
    assert type(caught.value) is errors.PdserveError


async def test_the_detail_is_readable_by_other_clients(service):
    servicer, stub = service
    servicer.error = errors.OverloadedError("full", limit="max_waiting=3", retry_after_s=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await release(stub)
    detail = types_pb2.ErrorDetail.FromString(dict(caught.value.trailing_metadata())[DETAIL_KEY])
    assert detail == types_pb2.ErrorDetail(
        reason="overloaded", limit="max_waiting=3", retry_after_s=2
    )


def test_reasons_tell_the_errors_apart():
    reasons = {kind.reason for kind in EVERY_ERROR}
    assert len(reasons) == len(EVERY_ERROR)
    assert errors.PdserveError.reason not in reasons


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.CANCELLED, "CANCELLED"),
        # What a client gets that was about to write when its peer died.
        (grpc.StatusCode.INTERNAL, "Internal error from Core"),
    ],
)
def test_a_call_that_grpc_has_cut_means_that_the_server_is_gone(code, details) -> None:
    cut = from_rpc_error(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details))
    assert type(cut) is errors.UnavailableError
    assert str(cut) == details
    said = error_detail(errors.PdserveError("a fault of the server"))
    metadata = aio.Metadata((DETAIL_KEY, said.SerializeToString()))
    told = from_rpc_error(aio.AioRpcError(code, aio.Metadata(), metadata, details))
    assert code is grpc.StatusCode.UNAVAILABLE or type(told) is errors.PdserveError
