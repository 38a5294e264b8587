"""`make corpus`: builds an environment for each family of tracers, and records the agent under each tracer.

python -m tests.corpus.record [TRACER …]
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
RECORDINGS = FOLDER / "recordings"
ENVIRONMENTS = ROOT / ".venv-corpus"
CONSTRAINTS = FOLDER / "constraints.txt"
SHARED = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-common")


class Family(NamedTuple):
    """Tracers that one environment holds."""

    packages: tuple[str, ...]
    tracers: dict[str, tuple[str, ...]]
    """The agent's module to the tracers that are recorded with it."""


FAMILIES = {
    "openai": Family(
        (
            "openai",
            "openai-agents",
            "openinference-instrumentation-openai",
            "openinference-instrumentation-openai-agents",
            "opentelemetry-instrumentation-openai",
            "opentelemetry-instrumentation-openai-v2",
            "httpx",  # opentelemetry-instrumentation-openai-v2 imports it, and does not say so
        ),
        {
            "openai_chat": (
                "openinference-openai-chat",
                "openllmetry-openai-chat",
                "opentelemetry-openai-chat",
            ),
            "openai_responses": ("openinference-openai-responses", "openllmetry-openai-responses"),
            "openai_agents": ("openinference-openai-agents", "openinference-openai-agents-chat"),
        },
    ),
    "langchain": Family(
        (
            "langchain-openai",
            "langchain-anthropic",
            "openinference-instrumentation-langchain",
            "opentelemetry-instrumentation-langchain",
        ),
        {
            "langchain_chat": (
                "openinference-langchain",
                "openinference-langchain-anthropic",
                "openllmetry-langchain",
            )
        },
    ),
    "anthropic": Family(
        (
            "anthropic",
            "openinference-instrumentation-anthropic",
            "opentelemetry-instrumentation-anthropic",
        ),
        {"anthropic_messages": ("openinference-anthropic", "openllmetry-anthropic", "anthropic-sdk")},
    ),
    "google": Family(
        (
            "google-genai",
            "openinference-instrumentation-google-genai",
            "opentelemetry-instrumentation-google-generativeai",
        ),
        {"google_genai": ("openinference-google-genai", "openllmetry-google-genai")},
    ),
    "litellm": Family(
        ("litellm", "openinference-instrumentation-litellm"), {"litellm_chat": ("openinference-litellm",)}
    ),
    "bedrock": Family(
        (
            "boto3",
            "openinference-instrumentation-bedrock",
            "opentelemetry-instrumentation-bedrock",
        ),
        {"bedrock_converse": ("openinference-bedrock", "openllmetry-bedrock")},
    ),
    "pydantic-ai": Family(
        ("pydantic-ai-slim[openai]", "openinference-instrumentation-pydantic-ai"),
        {"pydantic_ai_agent": ("pydantic-ai", "openinference-pydantic-ai")},
    ),
}


def main(wanted: list[str]) -> None:
    """Record the `wanted` tracers, or all of them."""
    RECORDINGS.mkdir(exist_ok=True)
    for name, family in FAMILIES.items():
        recorded = {
            module: [tracer for tracer in tracers if not wanted or tracer in wanted]
            for module, tracers in family.tracers.items()
        }
        if any(recorded.values()):
            python = build_environment(name, family)
            for module, tracers in recorded.items():
                for tracer in tracers:
                    record(python, module, tracer)


def build_environment(name: str, family: Family) -> Path:
    """Install the family's packages, where they are not there yet, and return its Python."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    done = folder / ".installed"
    wanted = "\n".join((*family.packages, CONSTRAINTS.read_text("utf-8")))
    if not done.exists() or done.read_text("utf-8") != wanted:
        print(f"Installing {', '.join(family.packages)} into {folder.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS]
        subprocess.run([*install, *family.packages, *SHARED], check=True)
        done.write_text(wanted, "utf-8")
    return python


def record(python: Path, module: str, tracer: str) -> None:
    """Record one tracer. It talks to this machine only, whatever proxy is set."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [python, "-m", f"tests.corpus.agents.{module}", tracer, RECORDINGS]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
