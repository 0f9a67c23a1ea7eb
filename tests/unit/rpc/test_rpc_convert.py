"""Sampling parameters cross a message unchanged, and what is unset takes its default."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.rpc.convert import sampling_from_proto, sampling_to_proto
from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams

UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FLOAT32 = st.floats(-100, 100, width=32)
PARAMS = st.builds(
    SamplingParams,
    temperature=FLOAT32,
    top_k=UINT32,
    top_p=FLOAT32,
    min_p=FLOAT32,
    repetition_penalty=FLOAT32,
    presence_penalty=FLOAT32,
    frequency_penalty=FLOAT32,
    logit_bias=st.dictionaries(UINT32, FLOAT32, max_size=4),
    seed=UINT64,
    stop_token_ids=st.lists(UINT32, max_size=4).map(tuple),
    ignore_eos=st.booleans(),
    min_tokens=UINT32,
    max_tokens=UINT32,
    logprobs=st.none() | UINT32,
)


def through_the_wire(params):
    data = sampling_to_proto(params).SerializeToString()
    message = types_pb2.Sampling.FromString(data)
    return sampling_from_proto(message, default_seed=1, default_max_tokens=2)


@settings(deadline=None)
@given(PARAMS)
def test_parameters_survive_the_wire(params):
    assert through_the_wire(params) == params


def test_an_unset_message_means_the_defaults():
    params = sampling_from_proto(types_pb2.Sampling(), default_seed=8, default_max_tokens=9)
    assert params == SamplingParams(seed=8, max_tokens=9)


def test_zero_is_not_unset():
    message = types_pb2.Sampling(
        temperature=0, top_p=0, repetition_penalty=0, seed=0, max_tokens=0, logprobs=0
    )
    params = sampling_from_proto(message, default_seed=8, default_max_tokens=9)
    assert (params.temperature, params.top_p, params.repetition_penalty) == (0, 0, 0)
    assert (params.seed, params.max_tokens, params.logprobs) == (0, 0, 0)


def test_values_are_rounded_to_single_precision_once():
    once = through_the_wire(SamplingParams(temperature=0.7))
    assert once.temperature == float(np.float32(0.7))
    assert through_the_wire(once) == once
