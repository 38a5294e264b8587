"""The answers that refuse a request, as the OpenAPI declares them: one form, and a sentence for each status.

The server itself answers 400, 408 and 431, in plain text, where a request's head or its pace is at fault: see
`daemon.runtime.http_server`.
"""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from daemon.access.bodies import JSON
from extractors.values import Value


class Refusal(Value):
    """Why a request was refused."""

    detail: str


class WrongValue(Value):
    """A value of the request that cannot be."""

    type: str
    loc: tuple[str | int, ...]
    """The way to it: `body`, `query`, `path` or `header`, and then names and numbers."""
    msg: str


class InvalidRequest(Value):
    """Why what was sent cannot be used; what was sent stands in none of it."""

    detail: str | tuple[WrongValue, ...]


REFERENCE = "#/components/schemas/{model}"
REASONS = {
    400: "The body cannot be read: it ended too early, or is no text.",
    401: "Nobody known asks: the token, the session or the password is missing or wrong.",
    403: "This caller may not do this, or a page of another site asks.",
    404: "There is nothing of this name, or nothing that the caller may see.",
    409: "The state of things does not allow it, or is no longer what the caller saw: read it again.",
    411: "The body needs a `Content-Length`.",
    413: "The body is too large.",
    415: "The body is of another media type than this route reads.",
    421: "The `Host` is none of ours.",
    422: "What was sent cannot be used.",
    429: "Too many failed attempts to sign in; `Retry-After` says when to try again.",
    502: "No replica serves the version.",
    503: "The store or a file cannot be used now.",
}
ANY = (403, 421)
"""Statuses of every route but the health checks."""
BODY = (400, 411, 413, 415, 422)
"""Statuses of every route that reads a body."""
INSIDE = (*ANY, 401, 422, 503)
"""Statuses of every route that asks for a credential."""


def refuse_with(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what declares these statuses, for the `responses` of a route or a router.

    FastAPI's `model` would declare them in the media type of the route's own answer.
    """
    return {
        status: {
            "description": REASONS[status],
            "content": {JSON: {"schema": {"$ref": REFERENCE.format(model=_choose_form(status).__name__)}}},
        }
        for status in sorted(set(statuses))
    }


def share_definitions(api: FastAPI) -> None:
    """Put the definitions to which `refuse_with` refers into the application's OpenAPI."""
    describe = api.openapi

    def describe_with_refusals() -> dict[str, Any]:
        described = describe()
        _, shared = models_json_schema(
            [(form, "serialization") for form in (Refusal, InvalidRequest)], ref_template=REFERENCE
        )
        described.setdefault("components", {}).setdefault("schemas", {}).update(shared["$defs"])
        return described

    api.openapi = describe_with_refusals  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _choose_form(status: int) -> type[Value]:
    return InvalidRequest if status == 422 else Refusal
