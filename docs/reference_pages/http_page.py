"""Every HTTP route: the daemon's from its OpenAPI description, the gateway's by asking it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.gateway.app import build_app
from daemon.gateway.route_file import RouteFile
from daemon.gateway.route_updates import DaemonAddress, RouteUpdates
from daemon.gateway.routes import RouteTable
from daemon.monitoring.metrics import Metrics
from daemon.settings.load import Settings
from daemon.views.status import Health
from reference_pages.markdown import GENERATED, code, table
from registry.store.store import Store

INTRO = """# HTTP routes

The daemon (`learnd run`, port 8710) describes its own API: `/docs` is a page to read and to try it out,
`/openapi.json` is the description for programs. The gateway (`learnd gateway`, port 8700) speaks the parts
of OpenAI's and Anthropic's APIs that are listed at the end.

**Who may ask.** Routes below `/api/v1` want an operator or a viewer: an operator's token
(`Authorization: Bearer …`), or a session from `POST /api/v1/session`. A session also needs the header
`X-CSRF-Token` with everything that changes something; `GET /api/v1/session` says what it is. Routes below
`/v1`, and `/metrics`, want an agent's token where the settings have any. `/healthz` and `/readyz` are open.
`/v1/gateway/routes` wants the gateway's own token then. See [Operators and tokens](../guides/operators.md).

**Problems** are answered with a JSON object whose `detail` says what happened. 401: nobody is signed in.
403: a viewer, or a missing CSRF token. 404: no such thing. 409: it is not possible as things are now.
422: a value that cannot be right. 502: a replica did not take part. 503: something passes; try again.

"""
GATEWAY = (
    (
        "POST",
        "/v1/chat/completions",
        "A chat completion by the target's active version; streams with `stream`.",
    ),
    ("POST", "/v1/completions", "A text completion by the target's active version; streams with `stream`."),
    ("POST", "/v1/responses", "OpenAI's Responses; streams with `stream`, stores nothing."),
    ("POST", "/v1/messages", "Anthropic's Messages; streams with `stream`."),
    ("POST", "/v1/messages/count_tokens", "The number of tokens of such a request. It is not traced."),
    ("GET", "/v1/models", "The targets that the caller may ask for, as models."),
    ("GET", "/v1/models/{tenant}/{agent}", "One of them."),
    ("GET", "/healthz", "The process is alive; since when the daemon is silent."),
    (
        "GET",
        "/readyz",
        "503 until the gateway knows which versions are active; since when the daemon is silent.",
    ),
    ("GET", "/metrics", "For Prometheus; see [Metrics](metrics.md)."),
)


def http_page() -> str:
    """Return the page as Markdown."""
    described = describe_daemon()
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["health and status"])[0]
            by_tag[tag].append(_describe(method.upper(), path, operation, described))
    parts = [f"## Daemon: {tag}\n\n{''.join(routes)}" for tag, routes in by_tag.items()]
    return GENERATED + INTRO + "".join(parts) + _gateway()


def describe_daemon() -> dict[str, Any]:
    """Return the OpenAPI description of the daemon's API."""

    def now() -> datetime:
        return datetime.now(UTC)

    with TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        with Store.open(settings.data_dir, now()) as store:
            operators = Authenticator(Operators(settings.operators, now), {})
            return build_api(settings, store, operators, Health(), Metrics(), now).openapi()


def _describe(method: str, path: str, operation: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    said = " ".join(operation.get("description", "").split())
    rows = [*_parameters(operation), *_body(operation, described)]
    answer = _answer(operation)
    parts = [f"### {code(f'{method} {path}')}\n\n{said}\n\n"]
    if rows:
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    if answer:
        parts.append(f"Answers with {answer}.\n\n")
    return "".join(parts)


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for each in operation.get("parameters", ()):
        if each["in"] in ("query", "path"):
            where = each["in"] if each.get("required") else f"{each['in']}, optional"
            yield code(each["name"]), where, _type(each["schema"]), each.get("description", "")


def _body(operation: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """The fields of the JSON that a request carries."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" not in schema:
        if content:
            yield "the body", "body", _type(schema), ""
        return
    model = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    required = model.get("required", ())
    for name, field in model.get("properties", {}).items():
        where = "body" if name in required else "body, optional"
        yield code(name), where, _type(field), field.get("description", "")


def _answer(operation: Mapping[str, Any]) -> str:
    for status, answer in operation.get("responses", {}).items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if status.startswith("2") and schema:
            return f"{status}: {_type(schema)}"
    return ""


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(code(json.dumps(each)) for each in schema["enum"])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if schema.get("type") == "array":
        items: Mapping[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"list of {_type(items)}"
    return str(schema.get("format") or schema.get("type") or "anything")


def _gateway() -> str:
    """The gateway's routes. Raises ValueError for one that the gateway does not know."""
    asyncio.run(_ask_gateway())
    rows = [(code(f"{method} {path}"), said) for method, path, said in GATEWAY]
    return (
        "## Gateway\n\n"
        + table(("route", "what it does"), rows)
        + (
            "The model is a target, `tenant/agent`. The header `x-learnd-session` names the conversation of "
            "a call, and `traceparent` puts the call into the caller's trace. A body may come with "
            "`Content-Encoding: gzip` or `deflate`; others are answered with 415. Everything else of a "
            "request goes to the replica as it is. The token may also come as `x-api-key`. See "
            "[APIs](../guides/agents.md#apis).\n"
        )
    )


async def _ask_gateway() -> None:
    daemon = DaemonAddress("http://127.0.0.1:1", token=None)
    routes = RouteUpdates(daemon, RouteTable(()), RouteFile(Path("none")), lambda: datetime.now(UTC))
    app: Any = build_app(routes=routes, tokens={}, max_body_bytes=1000, tracing=None)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for method, path, _ in GATEWAY:
            answer = await client.request(
                method, path, json={"model": "acme/routing"} if method == "POST" else None
            )
            if "no such route" in answer.text:
                raise ValueError(f"the gateway has no route {method} {path}; correct GATEWAY in {__file__}")
