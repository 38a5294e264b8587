"""Signs of a search that the provider ran for an answer: what it found is not in the messages."""

from collections.abc import Mapping
from typing import Any

from extractors.span_parsing.nested_attributes import get_path

SEARCHED = (
    "citations",
    "search_results",
    "tool_outputs",
    *(
        f"{place}{path}"
        for place in ("", "response_metadata.")
        for path in (
            "grounding_metadata.grounding_chunks",
            "grounding_metadata.web_search_queries",
            "groundingMetadata.groundingChunks",
            "groundingMetadata.webSearchQueries",
            "url_context_metadata",
            "urlContextMetadata",
        )
    ),
)
"""Paths in a response, a choice or a message that a provider fills where it has searched."""
CITATIONS = frozenset(
    {"url_citation", "file_citation", "container_file_citation", "web_search_result_location"}
)
"""Types of the citations that name what a search found; others name a place in the prompt."""


def rests_on_search(place: Any) -> bool:
    """Return whether a response, a choice or a message says that its provider has searched."""
    return any(get_path(place, path) for path in SEARCHED) or cites_search(place)


def cites_search(part: Any) -> bool:
    """Return whether a message or a part of its content cites what a search found."""
    if not isinstance(part, Mapping):
        return False
    noted = [part.get(key) for key in ("annotations", "citations")]
    cited = [entry for entries in noted if isinstance(entries, list) for entry in entries]
    return any(str(get_path(entry, "type")) in CITATIONS for entry in cited)
