"""Refusals of the API, in the shape that clients tell them apart by: a Status object."""

from typing import Any


class ApiError(Exception):
    """A request that the API refuses, with an HTTP code and a reason of the Kubernetes API."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def status(self) -> dict[str, Any]:
        """The Status object that clients read."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def not_served(what: str) -> ApiError:
    """No such resource in this API."""
    return ApiError(404, "NotFound", f"the server could not find the requested resource ({what})")


def not_found(plural: str, group: str, name: str) -> ApiError:
    """No object of that name."""
    qualified = f"{plural}.{group}" if group else plural
    return ApiError(
        404, "NotFound", f'{qualified} "{name}" not found', name=name, group=group, kind=plural
    )


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """An object of that name is there."""
    qualified = f"{plural}.{group}" if group else plural
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified} "{name}" already exists',
        name=name,
        group=group,
        kind=plural,
    )


def conflict(qualified: str, name: str, why: str) -> ApiError:
    """Somebody else changed the object meanwhile."""
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified} "{name}": {why}',
        name=name,
        kind=qualified,
    )


def too_old(asked: int, oldest: int) -> ApiError:
    """History does not reach back to the version that was asked for."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def bad_request(message: str) -> ApiError:
    """The request makes no sense."""
    return ApiError(400, "BadRequest", message)


def invalid(kind: str, name: str, field: str, why: str) -> ApiError:
    """An object that may not be stored."""
    return ApiError(
        422,
        "Invalid",
        f'{kind} "{name}" is invalid: {field}: {why}',
        name=name,
        kind=kind,
        causes=[{"reason": "FieldValueInvalid", "message": why, "field": field}],
    )


def forbidden(user: str, verb: str, resource: str, group: str, namespace: str) -> ApiError:
    """The user may not do that."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return ApiError(
        403,
        "Forbidden",
        f'{resource} is forbidden: User "{user}" cannot {verb} resource "{resource}"'
        f' in API group "{group}" {where}',
        kind=resource,
        group=group,
    )
