"""Reads a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Only `data` matters here: comments, which keep connections alive, and other fields are skipped.
"""

from pdserve.bench.target import RequestError

_MOST_BYTES = 16 << 20


class EventReader:
    """Cuts the bytes of a stream into the data of its events, wherever they are broken."""

    def __init__(self) -> None:
        self._line = b""  # begun, and not ended yet
        self._data: list[bytes] = []  # lines of the event that is not ended yet
        self._after_return = False  # a line feed now belongs to a line end that has been seen

    def feed(self, received: bytes) -> list[bytes]:
        """The data of every event that `received` completes.

        Raises `RequestError` for a line without end.
        """
        if not received:
            return []
        if self._after_return and received.startswith(b"\n"):
            received = received[1:]
        self._after_return = received.endswith(b"\r")
        if b"\r" in received:
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._line = (self._line + received).split(b"\n")
        if len(self._line) > _MOST_BYTES:
            raise RequestError("failed", f"a line of its stream exceeds {_MOST_BYTES >> 20} MiB")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
