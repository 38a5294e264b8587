"""`make bench`: measures ratios in one run and writes `.bench/results.json`, one key a benchmark.

python -m tests.benchmarks [NAME …]
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    attacks,
    console,
    dpo,
    evaluation,
    extraction,
    forgetting,
    gate,
    gateway,
    idle,
    race,
    sft,
    startup,
)

BENCHMARKS = {
    "attacks": attacks.measure,
    "console": console.measure,
    "dpo_memory_over_sft": dpo.measure,
    "evaluation_cost_ratio": evaluation.measure,
    "extraction": extraction.measure,
    "forgetting": forgetting.measure,
    "gate": gate.measure,
    "gateway": gateway.measure,
    "idle": idle.measure,
    "race": race.measure,
    "sft": sft.measure,
    "startup": startup.measure,
}
RESULTS = Path(".bench/results.json")


def main(names: list[str]) -> None:
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        sys.exit(f"no benchmark {sorted(unknown)}; there are: {', '.join(BENCHMARKS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for name in names or BENCHMARKS:
        print(f"{name} …", flush=True)
        results[name] = BENCHMARKS[name]()
        RESULTS.write_text(json.dumps(results, indent=2))
        Console().print(table_of(name, results[name]))


def table_of(name: str, result: Any) -> Table:
    """A benchmark's result: a line a figure, and a column a case where it has cases."""
    cases = result if isinstance(result, Mapping) else {"": result}
    if not all(isinstance(case, Mapping) for case in cases.values()):
        cases = {"": dict(cases)}
    cases = {column: dict(_flat(case)) for column, case in cases.items()}
    table = Table(name, *cases, box=None, pad_edge=False)
    for figure in dict.fromkeys(figure for case in cases.values() for figure in case):
        table.add_row(figure, *(f"{case[figure]:.4g}" if figure in case else "" for case in cases.values()))
    return table


def _flat(case: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    for name, figure in case.items():
        if isinstance(figure, Mapping):
            yield from _flat(figure, f"{within}{name}, ")
        else:
            yield f"{within}{name}", figure


if __name__ == "__main__":
    main(sys.argv[1:])
