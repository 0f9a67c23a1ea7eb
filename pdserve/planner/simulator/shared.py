"""The world as compiled functions hand it to each other: by reference.

A named tuple would be passed as all of its arrays, each counted up and down at every call; so
passed, the simulation took four times as long.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.experimental import structref

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import World


@structref.register
class _WorldType(types.StructRef):  # type: ignore[misc]
    """A reference to a record of `World`'s fields."""

    def preprocess_fields(self, fields: Any) -> Any:
        """No field's type is a constant."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)


class _SharedWorld(structref.StructRefProxy):  # type: ignore[misc]
    """What compiled functions call to make one; nothing else holds any."""


_shared_world: Callable[..., World] = _SharedWorld
structref.define_constructor(_SharedWorld, _WorldType, World._fields)
structref.define_attributes(_WorldType)


@compiled
def by_reference(w: World) -> World:
    """The same tables behind one reference."""
    return _shared_world(
        w.requests,
        w.instances,
        w.able,
        w.lists,
        w.order,
        w.stage_free_s,
        w.links,
        w.transfers,
        w.prefix_ids,
        w.prefix_cache,
        w.timeline,
        w.run,
    )
