"""Every error as HTTP tells it."""

from http import HTTPStatus

import pytest

from pdserve import errors
from pdserve.rpc.errors import MAX_TEXT
from pdserve.rpc.http_errors import ParameterError, http_error, protocol_error

STATUSES = {
    errors.InvalidRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.UnknownModelError: 404,
    errors.UnknownRequestError: 404,
    errors.OverloadedError: 429,
    errors.UnavailableError: 503,
    errors.DeadlineError: 504,
}
EVERY_ERROR = [errors.PdserveError, *errors.PdserveError.__subclasses__()]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_has_a_status_and_the_shape_that_clients_read(
    kind: type[errors.PdserveError],
) -> None:
    told = http_error(kind("words", field="top_p"))
    assert told.status == STATUSES.get(kind, 500)
    error = told.body()["error"]
    assert error["message"] == "words"
    assert error["param"] == "top_p"
    assert isinstance(error["code"], str)
    assert error["type"] == "server_error" or told.status < 500


@pytest.mark.parametrize(("given", "told"), [(0.0, "1"), (0.2, "1"), (2.5, "3")])
@pytest.mark.parametrize("kind", [errors.OverloadedError, errors.UnavailableError])
def test_clients_are_told_when_to_come_back_in_whole_seconds(
    kind: type[errors.PdserveError], given: float, told: str
) -> None:
    headers = http_error(kind("full", retry_after_s=given)).headers
    assert headers["Retry-After"] == told
    assert headers.get("Retry-After-Ms", "0") == f"{given * 1000:.0f}"


def test_a_parameter_may_have_another_name_and_a_code_of_its_own() -> None:
    error = ParameterError("no", field="slo.ttft_ms", code="invalid_type")
    told = http_error(error, {"slo.ttft_ms": "x-pdserve-ttft-ms"})
    assert (told.status, told.param, told.code) == (400, "x-pdserve-ttft-ms", "invalid_type")


def test_texts_are_cut() -> None:
    told = http_error(errors.InvalidRequestError("x" * 5000, field="y" * 5000))
    assert len(told.message) == MAX_TEXT
    assert told.param is not None
    assert len(told.param) == MAX_TEXT


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 415, 417])
def test_what_goes_wrong_in_http_itself(status: int) -> None:
    told = protocol_error(status, "words", {"Allow": "POST"})
    assert told.status == HTTPStatus(status)
    assert told.body()["error"]["type"] == "invalid_request_error"
    assert told.headers == {"Allow": "POST"}
