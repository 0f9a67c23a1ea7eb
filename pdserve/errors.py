"""What can go wrong, as exceptions; `pdserve.rpc` turns them into gRPC and HTTP status codes."""


class PdserveError(Exception):
    """Base of every error that a client may see.

    `reason` is stable and machine-readable; `field` and `limit` name what was wrong with a request;
    `retry_after_s` is when another try makes sense, 0 where that is unknown.
    """

    reason = "internal"

    def __init__(
        self, message: str, *, field: str = "", limit: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s


class InvalidRequestError(PdserveError):
    """The request can never succeed as it is."""

    reason = "invalid_argument"


class ConfigError(PdserveError):
    """A flag, environment variable or configuration file is wrong."""

    reason = "invalid_config"


class UnknownModelError(PdserveError):
    """The model is not served, or no such model can be found."""

    reason = "unknown_model"


class UnsupportedModelError(PdserveError):
    """The model exists, but its architecture or format is not supported."""

    reason = "unsupported_model"


class OutOfMemoryError(PdserveError):
    """The model or its KV pool does not fit; the text says what is needed and what there is."""

    reason = "out_of_memory"


class UnauthenticatedError(PdserveError):
    """An API key is needed, and there is none or an unknown one."""

    reason = "unauthenticated"


class OverloadedError(PdserveError):
    """A bounded queue is full."""

    reason = "overloaded"


class UnavailableError(PdserveError):
    """No instance can serve this now, or the instance failed or is draining."""

    reason = "unavailable"


class EngineError(UnavailableError):
    """The instance's engine failed in a step; the instance ends."""

    reason = "engine_failed"


class StaleIncarnationError(PdserveError):
    """The message was meant for an earlier life of this instance."""

    reason = "stale_incarnation"


class IncompatibleLayoutError(PdserveError):
    """Two instances cannot hand KV to each other."""

    reason = "incompatible_layout"


class TransferError(PdserveError):
    """A KV transfer failed; another attempt may succeed."""

    reason = "transfer_failed"


class DeadlineError(PdserveError):
    """The request's deadline has passed."""

    reason = "deadline_exceeded"


class UnknownRequestError(PdserveError):
    """The request or transfer is not known here, or no longer."""

    reason = "unknown_request"
