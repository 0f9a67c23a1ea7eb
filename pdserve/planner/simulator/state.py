"""The simulation's state: a row a request, a row an instance, and what lies between them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pdserve.latency.cost import InstanceCost
from pdserve.planner.simulator.policy import Policy
from pdserve.planner.simulator.tables import Table

Array = NDArray[Any]

NOBODY = -1
PREFILL, DECODE, BOTH = 0, 1, 2
# An instance's lists of requests.
DECODING, JOINING, PREFILLING = 0, 1, 2
LISTS = 3
# The links that KV leaves and enters an instance by: port, network card, rack and zone uplink.
LEVELS = 4


@dataclass(slots=True)
class Request:
    """A request and what has become of it; times are NaN until they come.

    `past` tokens of `target` have their KV on the instance that computes, `chunk` more are being
    computed. While it decodes, `context` tokens have KV and `remaining` are still to come.
    """

    arrival_s: float
    prompt: int
    output: int
    prefix_begin: int  # its prefix blocks are World.prefix_ids[prefix_begin:prefix_end]
    prefix_end: int
    prefill_on: int
    decode_on: int
    behind: int  # the next one in the same queue or the same pass
    turn: int  # its place among all that ever came to its instance's queue
    past: int
    target: int
    chunk: int
    context: int
    remaining: int
    blocks: int  # on the instance that decodes
    held_blocks: int  # on the instance that prefills for another
    estimate_s: float  # what routing expects its prefill to take
    cached: int  # prompt tokens that prefill found in its cache
    shared: int  # prompt tokens that decode had in its own, and need not receive
    preemptions: int
    drained: bool  # whether all KV has arrived that could leave before prefill ended
    started_s: float
    first_s: float
    admitted_s: float
    ready_s: float
    finished_s: float


@dataclass(slots=True)
class Instance:
    """An instance, what it does now, and what it has to do."""

    cost: InstanceCost
    policy: Policy
    role: int
    group: int
    kind: int  # equal instances have the same
    kv_blocks: int
    free_blocks: int
    busy: bool  # whether a step is in flight
    stamp: int  # of the event that ends it
    began_s: float
    steps: int  # decode steps that it makes, 1 unless it leaps
    taken: int  # sequences at the head of the decoding ones that are in it; pp = 1
    decoding: int
    joining: int
    prefilling: int
    context: int  # tokens with KV of all decoding sequences
    passing: int  # sequences between the first stage of a pipeline and its end
    loading: int  # sequences with blocks whose KV is on its way
    queued: int
    queue_head: int
    queue_tail: int
    turns: int  # requests that have ever come to the queue
    backlog_s: float  # predicted prefill work that is queued or running
    seqs: int  # requests routed here that have not finished
    tokens: int  # prompt tokens of those
    busy_s: float
    prefix_capacity: int  # blocks of the prefix cache
    prefix_clock: int
    outward: Array = field(metadata={"shape": LEVELS})
    inward: Array = field(metadata={"shape": LEVELS})
    place: Array = field(metadata={"shape": LEVELS - 1})


@dataclass(slots=True)
class Link:
    """A link: its speed, the transfers on it, and all bytes that have crossed it."""

    bytes_per_s: float
    transfers: int
    sent_bytes: float


@dataclass(slots=True)
class Transfer:
    """A request's KV under way."""

    request: int
    source: int
    sink: int
    left_bytes: float
    rate: float


@dataclass(slots=True)
class CachedPrefix:
    """A place of a prefix cache: the block in it, and when that was last touched."""

    block: int
    touched: int


@dataclass(slots=True)
class Moment:
    """The largest values within a slice of the timeline; the last one has all that comes later."""

    queued: int
    running: int
    kv_blocks: int


@dataclass(slots=True)
class Run:
    """Numbers of the whole simulation."""

    ttft_s: float
    tpot_s: float
    allowed_misses: int
    kv_bytes: float  # of a token
    tail: float  # share of a prompt's KV that can leave only after its last layer
    link_latency_s: float
    output_tokens: float  # what routing expects
    prefix_block: int  # tokens of a prefix block
    slice_s: float
    order: int  # events so far: those of one time come in the order of their making
    arrived: int  # requests that have arrived
    left: int  # requests that have neither finished nor been refused
    misses: int  # requests that have missed an SLO for certain
    transfers: int  # under way
    transfers_at_s: float  # when their `left_bytes` were true
    transfers_stamp: int


class World(NamedTuple):
    """All that the simulation's functions share.

    `able`, `[kinds, requests]`, says whose KV an instance of a kind can hold, and hand on. `lists`,
    `[instances, LISTS, slots]`, has indices of requests, `stage_free_s`, `[instances, stages]`,
    when a pipeline stage has let go of all passes, `prefix_cache` and `timeline` are `[instances,
    places]` and `[instances, slices]`; `run` has one row.
    """

    requests: Table[Request]
    instances: Table[Instance]
    able: Array
    lists: Array
    order: Array  # scratch space for one list
    stage_free_s: Array
    links: Table[Link]
    transfers: Table[Transfer]
    prefix_ids: Array
    prefix_cache: Array
    timeline: Array
    run: Table[Run]
