"""LiteLLM's proxy, to be measured beside our gateway: in an environment of its own, and without tracing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.demo.servers import find_free_port, run_server

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-litellm"
PACKAGE = "litellm[proxy]==1.106.4"
START_SECONDS = 180
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


def install() -> Path | None:
    """Install the proxy where it is not there yet, and return its program; None where it cannot be had."""
    program, done = ENVIRONMENT / "bin" / "litellm", ENVIRONMENT / ".installed"
    if not done.exists() or done.read_text("utf-8") != PACKAGE:
        print(f"Installing {PACKAGE} into {ENVIRONMENT.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGE]
        if subprocess.run(pip, check=False).returncode != 0:
            print("LiteLLM's proxy is NOT MEASURED: it cannot be installed here.", flush=True)
            return None
        done.write_text(PACKAGE, "utf-8")
    return program


@contextmanager
def run_litellm(
    program: Path, folder: Path, replica: str, model: str, token: str
) -> Iterator[tuple[str, int]]:
    """Run the proxy with one worker before `replica`, under the name `model`; gives its URL and process id.

    `token` is what a caller must send.
    """
    config, port = folder / "litellm.json", find_free_port()
    behind = {"model": "openai/base", "api_base": f"{replica}/v1", "api_key": "none"}
    # JSON is YAML, too.
    config.write_text(json.dumps({"model_list": [{"model_name": model, "litellm_params": behind}]}), "utf-8")
    where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with run_server(
        [str(program), "--config", str(config), *where],
        health_url=f"http://127.0.0.1:{port}/health/liveliness",
        log=folder / "litellm.log",
        env={**OFFLINE, "LITELLM_MASTER_KEY": token},
        start_seconds=START_SECONDS,
    ) as process:
        yield f"http://127.0.0.1:{port}", process.pid
