"""`make bench`: measures ratios in one run and writes `.bench/results.json`, one key a benchmark.

python -m tests.benchmarks [NAME …]
"""

import json
import sys
from pathlib import Path

from tests.benchmarks import dpo, extraction, gateway, sft

BENCHMARKS = {
    "dpo_memory_over_sft": dpo.measure,
    "extraction": extraction.measure,
    "gateway": gateway.measure,
    "sft": sft.measure,
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
        print(json.dumps(results[name], indent=2), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
