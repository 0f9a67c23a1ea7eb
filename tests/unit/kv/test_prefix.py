"""Block hashes name a whole prefix: equal exactly when every token before is equal."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.kv.prefix import HashChain, block_hash

TOKENS = st.lists(st.integers(0, 3), max_size=24)
bounded = settings(max_examples=60, deadline=None)


def common_blocks(a, b, size):
    count = 0
    while (end := (count + 1) * size) <= min(len(a), len(b)) and a[:end] == b[:end]:
        count += 1
    return count


@bounded
@given(TOKENS, TOKENS, st.integers(1, 5))
def test_hashes_agree_exactly_as_far_as_the_tokens_do(a, b, size):
    of_a = HashChain("model", size).upto(a, len(a))
    of_b = HashChain("model", size).upto(b, len(b))
    assert len(of_a) == len(a) // size
    agreeing = [x == y for x, y in zip(of_a, of_b, strict=False)]
    same = common_blocks(a, b, size)
    assert agreeing == [True] * same + [False] * (len(agreeing) - same)


@bounded
@given(TOKENS, st.integers(1, 5), st.data())
def test_a_growing_sequence_keeps_the_names_it_has(tokens, size, data):
    chain = HashChain("model", size)
    for count in sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=4))):
        grown = chain.upto(tokens[:count], count)
        assert grown == HashChain("model", size).upto(tokens, len(tokens))[: count // size]


def test_models_never_share_names():
    tokens = list(range(8))
    assert HashChain("one", 4).upto(tokens, 8) != HashChain("two", 4).upto(tokens, 8)


def test_only_full_blocks_among_the_counted_tokens_are_named():
    chain = HashChain("model", 4)
    assert len(chain.upto(list(range(11)), 11)) == 2
    assert len(chain.upto(list(range(11)), 7)) == 1


def test_a_hash_tells_every_token_id_apart():
    names = {block_hash(b"parent", [token]) for token in (0, 1, 255, 256, 65536, 2**32 - 1)}
    assert len(names) == 6
    assert {len(name) for name in names} == {16}
