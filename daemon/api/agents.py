"""Routes for agents that use no gateway: which version is active, and its files.

`learnd/client.py` is the other side.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.responses import StreamingResponse

from daemon.access.tokens import Caller, TokenDigests, Tokens, parse_bearer
from daemon.api.refusals import INSIDE, refuse_with
from extractors.values import Value
from registry.adapter_files import AdapterChanged, open_adapter_file

log = logging.getLogger(__name__)
PIECE_BYTES = 2**18
BINARY = {"schema": {"type": "string", "format": "binary"}}
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class AdapterFile(StreamingResponse):
    """The content of a file."""

    media_type = "application/octet-stream"


class AdapterFiles(Value):
    """The files of one adapter version, for callers who may see its target."""

    tenant: str
    folder: Path
    files: dict[str, str]
    """File name to SHA-256."""


class ActiveVersion(Value):
    """The version, or the base model, that answers for a target now."""

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


class ReplicaUrl(Value):
    """Address of a replica."""

    url: str
    """Base URL without `/v1`."""


class ActiveVersionAnswer(Value):
    """The version, or the base model, that answers for a target now.

    `learnd.ActiveVersion` is the client's side of the same wire type.
    """

    target: str
    """`tenant/agent`."""
    model: str
    """The name to ask the replicas for: the version, or the base model's."""
    version: str | None
    """Null while the base model serves."""
    cache_seconds: float
    """How long the answer may be used."""
    replicas: tuple[ReplicaUrl, ...]
    files: dict[str, str]
    """The adapter's files: name to SHA-256."""


def build_caller_dependency(
    tokens: Mapping[str, str], operators: Mapping[str, str] | None = None
) -> Callable[..., Caller]:
    """Return a FastAPI dependency that identifies the calling agent; 401 without a token where there are any.

    The `operators`' tokens open nothing here, so that no agent's settings ever hold one.
    """
    agents, refused = Tokens(tokens), TokenDigests(operators or {})

    def caller(authorization: Annotated[str | None, Header()] = None) -> Caller:
        if refused.get(parse_bearer(authorization)) is not None:
            raise HTTPException(403, "this is an operator's token; agents' routes need an agent's")
        found = agents.find_caller(authorization)
        if found is None:
            raise HTTPException(
                401, "a bearer token of your tenant is needed", headers={"WWW-Authenticate": "Bearer"}
            )
        return found

    return caller


def build_agents_router(
    *,
    find_active: Callable[[str], ActiveVersion | None],
    find_files: Callable[[str], AdapterFiles | None],
    tokens: Mapping[str, str],
    cache_seconds: float,
    operators: Mapping[str, str] | None = None,
) -> APIRouter:
    """Build the agents' routes below `/v1`.

    `find_active` returns what serves a target, None for an unknown one; `find_files` returns the files of a
    version, None where there is none or its files are gone. A client may use an answer for `cache_seconds`,
    because the version before stays loaded for as long. The tokens in `operators` are refused.
    """
    router = APIRouter(prefix="/v1", tags=["agents"], responses=refuse_with(*INSIDE, 404))
    caller = build_caller_dependency(tokens, operators)

    @router.get("/active/{tenant}/{agent}")
    def get_active(tenant: str, agent: str, by: Annotated[Caller, Depends(caller)]) -> ActiveVersionAnswer:
        """The version that serves a target now, its replicas and files; 404 for another tenant's target."""
        target = f"{tenant}/{agent}"
        found = find_active(target) if by.may_see(tenant) else None
        if found is None:
            raise HTTPException(404, f"no target {target}")
        return ActiveVersionAnswer(
            target=found.target,
            model=found.model,
            version=found.version,
            cache_seconds=cache_seconds,
            replicas=tuple(ReplicaUrl(url=url) for url in found.replica_urls),
            files=found.files,
        )

    @router.get(
        "/adapters/{version}/files/{name}",
        response_class=AdapterFile,
        responses={200: {"content": {AdapterFile.media_type: BINARY}}, **refuse_with(409)},
    )
    def get_file(version: str, name: str, by: Annotated[Caller, Depends(caller)]) -> AdapterFile:
        """One file of an adapter version; 404 if it is not there, or belongs to another tenant.

        409 where it is not what was trained: its digest differs, or it lies behind a link.
        """
        found = find_files(version)
        if found is None or not by.may_see(found.tenant) or not _is_served(found, name):
            raise HTTPException(404, f"no file {name} of {version}")
        try:
            file = open_adapter_file(found.folder, name, found.files[name])
        except AdapterChanged as changed:
            log.warning("a file is not handed out: %s", changed)
            raise HTTPException(
                409, f"{name} of {version} is not what was trained; tell an operator"
            ) from None
        length = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        return AdapterFile(_read_pieces(file), headers=length)

    return router


def _read_pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _is_served(adapter: AdapterFiles, name: str) -> bool:
    """Return True for a plain name that the manifest lists, of a file that is really in the folder."""
    path = adapter.folder / name
    return (
        name in adapter.files
        and PLAIN_NAME.fullmatch(name) is not None
        and path.is_file()
        and not path.is_symlink()
    )
