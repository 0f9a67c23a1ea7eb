"""Memory that one layer after another, and one step after another, writes anew."""

from torch import Tensor


class Scratch:
    """One buffer, as large as the largest use so far asked for. One thread uses it.

    For tensors of tens of megabytes that live for a moment in every layer: an allocator may give
    such memory back to the kernel each time (glibc's does, from 32 MiB on always and below that
    depending on what else was freed), and every page of it is then faulted in and zeroed again.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def rows(self, count: int, like: Tensor) -> Tensor:
        """[count, *like.shape[1:]] with `like`'s dtype and device, and arbitrary values.

        It is the memory of the call before: what that returned is overwritten.
        """
        size = count * like[0].numel()
        buffer = self._buffer
        if buffer is None or buffer.numel() < size or buffer.dtype != like.dtype:
            self._buffer = None  # first let go of what is too small
            # Half as much again, since contexts grow: a page that is not used takes no memory.
            self._buffer = buffer = like.new_empty(size + size // 2)
        return buffer[:size].view(count, *like.shape[1:])
