"""Who asked for what: the log that tests derive the needed permissions from, and refusals."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Access:
    """One request as RBAC sees it; `resource` names a subresource too (`pods/status`)."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests something is about; an empty field is about all."""

    verbs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    user: str = ""

    def covers(self, access: Access) -> bool:
        """Whether the request is one of those."""
        if self.verbs and access.verb not in self.verbs:
            return False
        if self.resources and access.resource not in self.resources:
            return False
        return self.user in ("", access.user)


@dataclass(slots=True)
class Faults:
    """What goes wrong on purpose; tests change it at any time."""

    # Each request waits so long before it is looked at.
    delay_s: float = 0.0
    # A watch from a version that is too old is answered with status 410, not with an ERROR event.
    gone_as_status: bool = False
    # Answered with 403.
    refused: list[Rule] = field(default_factory=list)
    # Answered with 500, as by a server that is about to go.
    failing: list[Rule] = field(default_factory=list)
