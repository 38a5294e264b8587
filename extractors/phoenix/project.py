"""A project of Phoenix, and questions about it in GraphQL."""

from typing import Any

from extractors.phoenix.http import PhoenixError, PhoenixHttp
from extractors.values import Value


class ProjectNotFound(PhoenixError):
    """Phoenix has no project of this name (yet: it creates one with the first span)."""


class Project(Value):
    """A project of Phoenix, as it is now."""

    id: str
    name: str
    gate: str | None
    """When Phoenix last wrote spans or annotations of it; None until it does after its start.
    Deleted annotations do not move it."""


def find_project(http: PhoenixHttp, name: str) -> Project:
    """Return the project called `name`. Raises ProjectNotFound, PhoenixError."""
    query = "query($name:String!){getProjectByName(name:$name){id streamingLastUpdatedAt}}"
    found = http.graphql(query, {"name": name})["getProjectByName"]
    if found is None:
        raise ProjectNotFound(
            f"Phoenix at {http.url} has no project {name!r}; check the name, or send a first span to it"
        )
    return Project(id=found["id"], name=name, gate=found["streamingLastUpdatedAt"])


def query_project(http: PhoenixHttp, project: Project, query: str, **variables: Any) -> dict[str, Any]:
    """Return the project's node of a GraphQL answer; the query names the project `$id`.

    Raises ProjectNotFound, PhoenixError.
    """
    node = http.graphql(query, {"id": project.id, **variables}).get("node")
    if not node:
        raise ProjectNotFound(f"project {project.name!r} is gone from Phoenix at {http.url}")
    return dict(node)
