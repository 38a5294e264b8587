"""Everything that one run measured, item by item, as it is published."""

from typing import Self

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from extractors.phoenix.dataset_client import DatasetExample
from extractors.values import Value


class ExampleRun(Value):
    """The answer of one side to one example, and its scores."""

    example_id: str
    output: JsonValue
    started_at: AwareDatetime
    ended_at: AwareDatetime
    correct: bool | None = None
    """None where nobody said what would be right."""
    valid: bool | None = None
    measures: dict[str, float] = {}
    """Further scores by name; one that is no finite number is left out."""


class ExperimentSide(Value):
    """One side of the comparison: base, active version or candidate."""

    name: str
    """Identifies the side within the run."""
    title: str
    """The side's name on Phoenix's pages."""
    description: str = ""
    metadata: dict[str, JsonValue] = {}
    runs: tuple[ExampleRun, ...]


class MeasuredRun(Value):
    """Everything that one run of a target measured."""

    run_id: str
    dataset: str
    """Name of the target's dataset."""
    description: str = ""
    """Of the dataset; Phoenix keeps that of the first time."""
    examples: tuple[DatasetExample, ...] = Field(min_length=1)
    """The items of the holdout."""
    sides: tuple[ExperimentSide, ...] = Field(min_length=1)
    """The first is the one with which Phoenix's page compares the others."""

    @model_validator(mode="after")
    def _check_examples_are_known(self) -> Self:
        ids = {example.id for example in self.examples}
        for side in self.sides:
            if unknown := [run.example_id for run in side.runs if run.example_id not in ids]:
                raise ValueError(f"side {side.name} answers examples that are not there: {unknown[:5]}")
        return self
