"""What the router knows of prefix caches, and the names by which it does."""

from hypothesis import given
from hypothesis import strategies as st

from pdserve.kv.layout import KvLayout
from pdserve.kv.prefix import HashChain
from services.router.placement.block_names import BlockChain
from services.router.placement.prefix_index import PrefixIndex
from services.router.placement.slots import Slots

INSTANCES = ("a", "b", "c")
NAMES = st.integers(0, 9)
STEPS = st.lists(
    st.tuples(st.sampled_from(INSTANCES), st.sampled_from(("add", "remove", "reset")), NAMES),
    max_size=60,
)


def slots_of(names) -> Slots:
    slots = Slots()
    for name in names:
        slots.take(name)
    return slots


@given(STEPS, st.lists(NAMES, unique=True, max_size=10))
def test_leading_blocks_are_those_that_were_reported(steps, chain) -> None:
    slots = slots_of(INSTANCES)
    index = PrefixIndex(slots)
    held = {name: set() for name in INSTANCES}
    for instance, step, block in steps:
        match step:
            case "add":
                index.add(instance, [block])
                held[instance].add(block)
            case "remove":
                index.remove(instance, [block])
                held[instance].discard(block)
            case "reset":
                index.reset(instance)
                held[instance].clear()
    expected = {}
    for instance, blocks in held.items():
        depth = next((at for at, name in enumerate(chain) if name not in blocks), len(chain))
        if depth:
            expected[slots[instance]] = depth
    assert index.leading_blocks(chain) == expected
    assert len(index) == sum(map(len, held.values()))


def test_a_bound_is_kept_and_room_is_made_again() -> None:
    index = PrefixIndex(slots_of("ab"), max_entries=4)
    index.add("a", [1, 2, 3])
    index.add("b", [1, 2])
    assert len(index) == 4
    assert index.leading_blocks([1, 2]) == {0: 2, 1: 1}
    index.reset("a")
    index.add("b", [2])
    assert index.leading_blocks([1, 2]) == {1: 2}


def test_slots_are_dense_and_given_again() -> None:
    slots = slots_of("abc")
    assert slots.give_back("b") == 1
    assert slots.take("d") == 1
    assert slots.take("e") == 3
    assert (len(slots), slots.bound) == (4, 4)
    assert "b" not in slots


@given(st.lists(st.integers(0, 999), max_size=80), st.integers(1, 9), st.integers(0, 80))
def test_blocks_have_the_names_that_instances_report(tokens, block_size, before) -> None:
    layout = KvLayout("fingerprint", "float32", 1, 1, 1, block_size)
    hashes = HashChain("fingerprint", block_size).upto(tokens, len(tokens))
    chain = BlockChain()
    chain.names(tokens[:before], layout)
    names = chain.names(tokens, layout)
    assert names == [int.from_bytes(each[:8], "little") for each in hashes]
