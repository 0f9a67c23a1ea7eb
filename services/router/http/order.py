"""What one HTTP request asks for, in the words of the gRPC API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pdserve.rpc.http_errors import ParameterError
from pdserve.rpc.v1 import router_pb2, types_pb2
from services.router.http.fields import Fields
from services.router.http.headers import PRIORITY, REQUEST_ID, TPOT_MS, TTFT_MS, Terms
from services.router.http.sampling import stops_of

# The most choices of one request, those of all its prompts together.
MAX_CHOICES = 128
# Accepted, since they change nothing that is generated; `name` of a message is another.
_WITHOUT_EFFECT = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
# Fields of the gRPC API that are not fields here, and what stands for them.
_NAMES = {
    "priority": PRIORITY,
    "ref.request_id": REQUEST_ID,
    "slo.ttft_ms": TTFT_MS,
    "slo.tpot_ms": TPOT_MS,
    "token_ids": "prompt",
}


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the router for each choice; those of a prompt follow each other.

    `names` says how errors of a run are told to the client: API field by gRPC field.
    """

    request_id: str
    runs: tuple[router_pb2.GenerateRequest, ...]
    choices_a_prompt: int
    stream: bool
    include_usage: bool
    logprobs: bool
    terms: Terms
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where orders are taken: whose, on which terms, and how many choices it may have."""

    request_id: str
    terms: Terms
    max_choices: int

    def order(
        self,
        fields: Fields,
        prompts: Sequence[router_pb2.GenerateRequest],
        sampling: types_pb2.Sampling,
        names: Mapping[str, str],
    ) -> Order:
        """The order of `fields`, of which all but the common ones have been taken.

        `prompts` hold nothing but the input. Raises `ParameterError`.
        """
        count = fields.whole("n", 1, MAX_CHOICES) or 1
        _check_count(count * len(prompts), min(MAX_CHOICES, self.max_choices))
        template = router_pb2.GenerateRequest(
            model=fields.text("model") or "",
            sampling=sampling,
            stop=stops_of(fields),
            slo=self.terms.slo,
            priority=self.terms.priority,
        )
        stream = fields.flag("stream") or False
        include_usage = _include_usage(fields, stream)
        fields.ignore(_WITHOUT_EFFECT)
        fields.done()
        runs = [_run(prompt, template, place) for prompt in prompts for place in range(count)]
        for number, run in enumerate(runs):
            run.ref.request_id = (
                self.request_id if len(runs) == 1 else f"{self.request_id}-{number}"
            )
        return Order(
            request_id=self.request_id,
            runs=tuple(runs),
            choices_a_prompt=count,
            stream=stream,
            include_usage=include_usage,
            logprobs=sampling.HasField("logprobs"),
            terms=self.terms,
            names=_NAMES | dict(names),
        )


def _run(
    prompt: router_pb2.GenerateRequest, template: router_pb2.GenerateRequest, place: int
) -> router_pb2.GenerateRequest:
    """The run for one choice of a prompt: the same seed would say the same thing `n` times."""
    run = router_pb2.GenerateRequest()
    run.CopyFrom(prompt)
    run.MergeFrom(template)
    if template.sampling.HasField("seed"):
        run.sampling.seed = (template.sampling.seed + place) % 2**64
    return run


def _check_count(count: int, limit: int) -> None:
    if count > limit:
        raise ParameterError(
            f"the request asks for {count} choices, n for each prompt; it may have {limit}",
            field="n",
            code="invalid_value",
            limit=str(limit),
        )


def _include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise ParameterError(
            "stream_options is only for stream: true", field="stream_options", code="invalid_value"
        )
    include_usage = options.flag("include_usage") or False
    # The one hides lengths from eavesdroppers by padding; the other repeats counts that the last
    # chunk has anyway.
    options.ignore(("include_obfuscation", "continuous_usage_stats"))
    options.done()
    return include_usage
