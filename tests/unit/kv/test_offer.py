"""What the engine says of an offer."""

from kv_pair import FIRST_TOKEN, LAYOUT, request_ref

from pdserve.kv.offer import Offer


async def test_the_engine_s_mark_outlives_the_first_token():
    offer = Offer("t", request_ref("t"), 20, range(LAYOUT.layers), lambda: None)
    offer.place(range(8), 0)
    written = object()
    offer.advance(0, LAYOUT.layers, 20, written)
    offer.complete(FIRST_TOKEN)
    assert set(offer.progress().marks) == {written}
