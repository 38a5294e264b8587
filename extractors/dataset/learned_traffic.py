"""Traffic that a version was trained on: on its prompts, and in its sessions, answers show memory."""

from collections.abc import Iterable
from typing import Protocol

from extractors.cleaning.quality import iterate_kinds
from extractors.dataset.build import find_prompt_keys
from extractors.examples.types import Examples
from extractors.values import Value


class Asked(Protocol):
    """A prompt in its session: an example, or an item to answer."""

    @property
    def session_id(self) -> str | None: ...
    @property
    def prompt_key(self) -> str: ...


class LearnedTraffic(Value):
    """The sessions and the normalised prompts of training examples."""

    sessions: frozenset[str] = frozenset()
    prompt_keys: frozenset[str] = frozenset()
    is_complete: bool = True
    """False where some of what was trained on is not known any more."""

    @classmethod
    def from_examples(cls, sides: Iterable[Examples], *, is_complete: bool = True) -> "LearnedTraffic":
        """Collect the sessions and prompts of everything in `sides`."""
        examples = [each for side in sides for _, members in iterate_kinds(side) for each in members]
        return cls(
            sessions=frozenset(each.session_id for each in examples if each.session_id),
            prompt_keys=frozenset(key for each in examples for key in find_prompt_keys(each)),
            is_complete=is_complete,
        )

    def has(self, asked: Asked) -> bool:
        """Return whether this prompt, or something else in its session, was trained on."""
        return asked.prompt_key in self.prompt_keys or asked.session_id in self.sessions
