"""What agents that use no gateway ask of the daemon: which version is active, and its files.

`learnd/client.py` is the other side.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.responses import FileResponse

from daemon.access.tokens import Caller, TokenDigests, Tokens, parse_bearer
from extractors.values import Value

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class AdapterFiles(Value):
    """The files of one adapter version, for whoever may see its target."""

    tenant: str
    folder: Path
    files: dict[str, str]
    """File name to SHA-256."""


class ActiveVersion(Value):
    """What answers for a target right now."""

    target: str
    """`tenant/agent`."""
    version: str | None
    """None while the base model serves."""
    model: str
    """The name to ask the replicas for: the version, or the base model's."""
    replica_urls: tuple[str, ...]
    """Base URLs without `/v1`; a replica's key is the operator's to hand out, never ours."""
    files: dict[str, str]
    """File name to SHA-256; empty for the base model."""


def build_caller_dependency(
    tokens: Mapping[str, str], operators: Mapping[str, str] | None = None
) -> Callable[..., Caller]:
    """A dependency that gives the caller of a route; 401 without a token where there are any.

    The `operators`' tokens open nothing here: who finds one in an agent's settings should not need it.
    """
    known, apart = Tokens(tokens), TokenDigests(operators or {})

    def caller(authorization: Annotated[str | None, Header()] = None) -> Caller:
        if apart.get(parse_bearer(authorization)) is not None:
            raise HTTPException(403, "this is an operator's token; agents' routes want an agent's")
        found = known.caller(authorization)
        if found is None:
            raise HTTPException(
                401, "a bearer token of your tenant is needed", headers={"WWW-Authenticate": "Bearer"}
            )
        return found

    return caller


def build_agents_router(
    *,
    active: Callable[[str], ActiveVersion | None],
    adapter: Callable[[str], AdapterFiles | None],
    tokens: Mapping[str, str],
    cache_seconds: float,
    operators: Mapping[str, str] | None = None,
) -> APIRouter:
    """Routes below `/v1` for agents.

    `active` reads what serves a target, None for an unknown one; `adapter` the files of a
    version, None where there is none or its files are gone. `cache_seconds` is how long a
    client may keep an answer, because the version before stays loaded for as long. `operators` are
    tokens that are refused.
    """
    router = APIRouter(prefix="/v1", tags=["agents"])
    caller = build_caller_dependency(tokens, operators)

    @router.get("/active/{tenant}/{agent}")
    def get_active(tenant: str, agent: str, by: Annotated[Caller, Depends(caller)]) -> dict[str, Any]:
        target = f"{tenant}/{agent}"
        found = active(target) if by.sees(tenant) else None
        if found is None:
            raise HTTPException(404, f"no target {target}")
        return {
            "target": found.target,
            "model": found.model,
            "version": found.version,
            "cache_seconds": cache_seconds,
            "replicas": [{"url": url} for url in found.replica_urls],
            "files": found.files,
        }

    @router.get("/adapters/{version}/files/{name}")
    def get_file(version: str, name: str, by: Annotated[Caller, Depends(caller)]) -> FileResponse:
        found = adapter(version)
        if found is None or not by.sees(found.tenant) or not _is_served(found, name):
            raise HTTPException(404, f"no file {name} of {version}")
        return FileResponse(found.folder / name, media_type="application/octet-stream")

    return router


def _is_served(adapter: AdapterFiles, name: str) -> bool:
    """Only plain names that the manifest lists, and only what really lies in the folder."""
    path = adapter.folder / name
    return (
        name in adapter.files
        and PLAIN_NAME.fullmatch(name) is not None
        and path.is_file()
        and not path.is_symlink()
    )
