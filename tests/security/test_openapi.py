"""The daemon does what its OpenAPI promises: three callers send what schemathesis draws.

`make soak` draws many more (OPENAPI_EXAMPLES) than `make test`, which draws the same ones each time.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from registry.store.store import Store
from tests.integration.registry.store.batch_support import TARGET, a_batch
from tests.integration.registry.store.store_support import a_candidate
from tests.support.daemon_doors import AGENT, GATEWAY, OPERATOR, VIEWER, run_doors_apart

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SOAK = "OPENAPI_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "8"))
"""Requests of each caller to each operation."""
OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/api/v1/session")}
SESSION = "/api/v1/session"
READING = {"GET", "HEAD"}


@schemathesis.serializer("application/x-ndjson")
def serialize_lines(_context: Any, value: Any) -> bytes:
    """Return the body of an upload: what is drawn for it is a text, or something that is none."""
    return str(value).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Doors:
    """A daemon in a process of its own."""

    url: str
    store: Store


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with run_doors_apart(tmp_path_factory.mktemp("doors")) as (url, store):
        yield Doors(url, store)


@pytest.fixture(scope="module")
def names(doors: Doors) -> dict[str, str]:
    """Values of the paths' parameters for which there is something."""
    batch = a_batch(doors.store, "what a customer said")
    version = a_candidate(doors.store, TARGET)
    tenant, agent = TARGET.split("/")
    names = {"tenant": tenant, "agent": agent, "batch_id": batch.id, "number": "1", "version": version.id}
    return {
        **names,
        "version_id": version.id,
        "cycle_id": version.cycle_id,
        "run": version.id,
        "name": "adapter_config.json",
    }


def list_operations(doors: Doors) -> list[APIOperation]:
    schema = schemathesis.openapi.from_url(f"{doors.url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations()]


def find_token(caller: str, path: str) -> str | None:
    """Return the token that a caller of this kind has for the path."""
    if caller == "stranger":
        return None
    if path.startswith("/api/v1/"):
        return {"operator": OPERATOR, "viewer": VIEWER}[caller]
    return GATEWAY if path.startswith("/v1/gateway/") else AGENT


def expect_refusal(caller: str, method: str, path: str) -> int | None:
    """Return the status that refuses the caller, whatever is sent; None where the request counts."""
    if (method, path) in OPEN:
        return None
    if caller == "stranger":
        return 401
    is_change = path.startswith("/api/v1/") and method not in READING and path != SESSION
    return 403 if caller == "viewer" and is_change else None


def try_operation(
    operation: APIOperation, token: str | None, refusal: int | None, names: dict[str, str]
) -> int:
    """Send drawn requests and check the answers; return how many. Refusals take few: nothing sent counts.

    Half of them are about what the `names` in their paths mean, the others about what there is not.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    tried = 0

    @hypothesis_settings(
        max_examples=EXAMPLES if refusal is None else max(EXAMPLES // 4, 2),
        derandomize=not SOAK,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=draw_cases(operation))
    def send(case: Case) -> None:
        nonlocal tried
        case.headers.pop("authorization", None)
        if tried % 2:
            case.path_parameters |= {name: names[name] for name in case.path_parameters}
        response = case.call(headers=headers)
        tried += 1
        assert refusal in {None, response.status_code}, f"expected {refusal}, got {response.status_code}"
        case.validate_response(response, checks=CHECKS)

    send()
    return tried


@pytest.mark.timeout(0 if SOAK else 300)
@pytest.mark.parametrize("caller", ["operator", "viewer", "stranger"])
def test_every_answer_is_one_that_the_openapi_declares(
    doors: Doors, names: dict[str, str], caller: str
) -> None:
    operations, wrong, tried = list_operations(doors), [], 0
    assert len(operations) > 30
    for operation in operations:
        method, path = operation.method.upper(), operation.path
        refusal = expect_refusal(caller, method, path)
        try:
            tried += try_operation(operation, find_token(caller, path), refusal, names)
        except (AssertionError, BaseExceptionGroup) as failed:
            wrong.append(f"{method} {path}: {describe(failed)}")
    assert not wrong, "\n\n".join(wrong)
    assert tried > 2 * len(operations)


def draw_cases(operation: APIOperation) -> Any:
    """Return requests as they are described, and others."""
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not (operation.query or operation.body or operation.path_parameters or operation.headers):
        return right
    return right | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def describe(failed: BaseException) -> str:
    """Return the words of a failure, and of those in it."""
    if isinstance(failed, BaseExceptionGroup):
        return "\n".join(describe(each) for each in failed.exceptions)
    return str(failed)
