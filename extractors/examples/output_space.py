"""The output space of a classification: the labels that are valid answers, in their spelling."""

from collections.abc import Iterable

from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Message


class OutputSpace:
    """The valid answers; without labels, every answer is valid."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels = {normalise(label): label for label in labels}

    def to_label(self, answer: Message) -> Message | None:
        """Return `answer` in the space's spelling; None where it is not in the space."""
        if not self._labels:
            return answer
        label = self._labels.get(normalise(answer.content))
        return None if label is None else Message(role="assistant", content=label)
