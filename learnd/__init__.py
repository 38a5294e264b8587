"""learnd for agents: follow the adapter that is active for a target.

    from learnd import ActiveAdapter

    routing = ActiveAdapter("acme/routing")
    answer = routing.chat([{"role": "user", "content": "I was charged twice"}])

Importing this package loads nothing else. httpx is loaded with `ActiveAdapter` and with the experiments, PEFT
only when an `AdapterMixin` loads its first adapter, sentence-transformers with the first `Embedder`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnd.active_version import ActiveVersion
    from learnd.client import ActiveAdapter
    from learnd.embedding import Embedder, Vectors
    from learnd.errors import LearndClientError
    from learnd.experiments import compare_experiments, get_experiment_details, list_experiments
    from learnd.inprocess import AdapterMixin

__all__ = [
    "ActiveAdapter",
    "ActiveVersion",
    "AdapterMixin",
    "Embedder",
    "LearndClientError",
    "Vectors",
    "compare_experiments",
    "get_experiment_details",
    "list_experiments",
]

_HOMES = {
    "ActiveAdapter": "learnd.client",
    "ActiveVersion": "learnd.active_version",
    "AdapterMixin": "learnd.inprocess",
    "Embedder": "learnd.embedding",
    "LearndClientError": "learnd.errors",
    "Vectors": "learnd.embedding",
    "compare_experiments": "learnd.experiments",
    "get_experiment_details": "learnd.experiments",
    "list_experiments": "learnd.experiments",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'learnd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
