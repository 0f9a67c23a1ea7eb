"""Steps take the memory that steps before them have left."""

import resource

import pytest
import torch
from tiny_models import Text, make_checkpoint, make_pool, random_tokens, run, source_of

from pdserve.engine.loader import load_model
from pdserve.engine.scratch import Scratch


def test_the_memory_of_one_use_is_that_of_the_next():
    scratch = Scratch()
    large = scratch.rows(8, torch.zeros(3, 5))
    small = scratch.rows(2, torch.zeros(3, 5))
    assert large.shape == (8, 5)
    assert small.shape == (2, 5)
    assert small.data_ptr() == large.data_ptr()


def test_it_grows_with_room_to_spare():
    scratch = Scratch()
    like = torch.zeros(1, 4)
    scratch.rows(8, like)
    grown = scratch.rows(10, like)
    assert scratch.rows(12, like).data_ptr() == grown.data_ptr()
    assert scratch.rows(100, like).shape == (100, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_takes_another_dtype(dtype):
    scratch = Scratch()
    scratch.rows(8, torch.zeros(1, 4))
    assert scratch.rows(8, torch.zeros(1, 4, dtype=dtype)).dtype == dtype


def test_a_decode_step_faults_in_no_memory_for_the_kv_that_it_gathers(tmp_path):
    make_checkpoint("llama", tmp_path)
    model = load_model(source_of(tmp_path), torch.float32, torch.device("cpu"))
    block_size, sequences, context = 128, 48, 8192
    blocks = context // block_size
    pool = make_pool(model, blocks=blocks, block_size=block_size)
    pool.data.normal_()
    gathered_bytes = sequences * pool.data[0, 0].nbytes
    assert gathered_bytes > 32 << 20, "glibc would keep less than that by itself"

    def step() -> int:
        texts = [Text(random_tokens(context), range(blocks)) for _ in range(sequences)]
        for text in texts:
            text.done = context - 1
        spans = [text.next_span(1) for text in texts]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run(model, pool, spans)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    step()
    pages = gathered_bytes // resource.getpagesize()
    assert min(step() for _ in range(3)) < pages / 10
