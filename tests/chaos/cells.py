"""The matrix of the failure contract: what fails, how, and at which moment of a request's life."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import product


class Victim(StrEnum):
    """What fails."""

    PREFILL = "prefill"
    DECODE = "decode"
    LINK = "link"
    ROUTER = "router"


class Fault(StrEnum):
    """How it fails."""

    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    CUT = "connection cut"
    SILENCE = "connection silent"
    SLOW = "connection slow"


class Moment(StrEnum):
    """Where some request stands when it happens."""

    QUEUED = "queued"
    COMPUTING = "computing"
    # KV complete and held on prefill, the first token out, nothing pulled.
    BETWEEN = "between phases"
    TRANSFER = "mid-transfer"
    DECODING = "decoding"
    # One token of the output is missing.
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to fail."""

    victim: Victim
    fault: Fault
    moment: Moment

    def __str__(self) -> str:
        return f"{self.victim}, {self.fault}, {self.moment}"

    @property
    def ends_streams(self) -> bool:
        """Whether clients lose what runs, and are told so."""
        return self.victim is Victim.ROUTER and self.fault in (Fault.KILL, Fault.CUT)


def reason_left_out(cell: Cell) -> str:
    """Why a combination is none, or stands in another one's cell; empty where it is a cell."""
    match cell.victim, cell.fault, cell.moment:
        case Victim.LINK, Fault.KILL | Fault.STOP, _:
            return "a link is no process"
        case Victim.LINK, _, Moment.QUEUED:
            return "no KV moves before prefill computes"
        case Victim.LINK, _, Moment.DECODING | Moment.FINISHING:
            return "the KV has left the link"
        case Victim.PREFILL, _, Moment.FINISHING:
            return "prefill has no part in the request any more, as while it decodes"
        case Victim.DECODE, _, Moment.QUEUED:
            return "decode hears of a request when prefill has started it"
        case Victim.ROUTER, Fault.SILENCE, _:
            return "to the router a client that does not read, which may do so for 15 s"
        case Victim.ROUTER, Fault.STOP, Moment.QUEUED | Moment.BETWEEN | Moment.FINISHING:
            return "a router that is stopped does not know computing, mid-transfer, decoding apart"
        case Victim.LINK, Fault.SILENCE, Moment.COMPUTING | Moment.BETWEEN:
            return "nothing is lost before the transfer is under way"
        case Victim.PREFILL | Victim.DECODE, Fault.SILENCE, moment if moment not in (
            Moment.TRANSFER,
            Moment.DECODING,
        ):
            return "its peers cannot tell it from SIGSTOP"
        case Victim.PREFILL, Fault.SILENCE | Fault.SLOW, Moment.DECODING:
            return "nothing of the request passes there any more"
        case Victim.PREFILL | Victim.DECODE | Victim.ROUTER, Fault.SLOW, moment if (
            moment is not Moment.COMPUTING
        ):
            return "a connection that is slow stays slow: computing and all that follows"
    return ""


ALL = [Cell(*each) for each in product(Victim, Fault, Moment)]
CELLS = [cell for cell in ALL if not reason_left_out(cell)]
LEFT_OUT = {cell: reason for cell in ALL if (reason := reason_left_out(cell))}
