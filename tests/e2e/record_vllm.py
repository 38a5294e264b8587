"""Records what a real vLLM answers over each API, for tests that replay it without a model.

    .venv/bin/python -m tests.e2e.record_vllm

Writes `tests/support/recordings/vllm.json`, which `tests.support.vllm_recordings` reads.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from daemon.demo.vllm import run_vllm
from tests.e2e.sdks import script
from tests.e2e.sdks.scripted_model import MAX_LENGTH, teach_llama
from tests.support.vllm_recordings import FILE, Recording

CALL_IDS = dict(zip(script.TIDE, ("call_1", "call_2"), strict=True))
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
FUNCTION = {
    "name": script.TOOL_NAME,
    "description": script.TOOL_DESCRIPTION,
    "parameters": script.TOOL_PARAMETERS,
}


def list_requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name of a conversation, the API that carries it, and the request."""
    for name, question in (("ferry", script.FERRY), ("berth", script.BERTH), ("cut", script.ENDLESS)):
        user = {"role": "user", "content": question}
        limit = 6 if name == "cut" else 50
        form = {"name": "berth", "schema": script.BERTH_SCHEMA, "strict": True}
        is_form = name == "berth"
        yield (
            name,
            "chat",
            {
                "messages": [{"role": "system", "content": script.SYSTEM}, user],
                "max_tokens": limit,
                **({"response_format": {"type": "json_schema", "json_schema": form}} if is_form else {}),
            },
        )
        yield (
            name,
            "responses",
            {
                "instructions": script.SYSTEM,
                "input": question,
                "max_output_tokens": limit,
                **({"text": {"format": {"type": "json_schema", **form}}} if is_form else {}),
            },
        )
        output = {"format": {"type": "json_schema", "schema": script.BERTH_SCHEMA}}
        yield (
            name,
            "messages",
            {
                "system": script.SYSTEM,
                "messages": [user],
                "max_tokens": limit,
                **({"output_config": output} if is_form else {}),
            },
        )
    for name in ("tides", "results"):
        yield from list_tool_requests(name, with_results=name == "results")
    for api in PATHS:
        yield "unknown model", api, {**dict(_shortest(api)), "model": "acme.routing.v1"}
        yield "bad request", api, {**dict(_shortest(api)), "temperature": "hot"}


def list_tool_requests(name: str, *, with_results: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the question that calls two tools at once, with their results or without."""
    user = {"role": "user", "content": script.TIDES}
    calls = [(CALL_IDS[place], {"place": place}, height) for place, height in script.TIDE.items()]
    chat: list[Any] = [{"role": "system", "content": script.SYSTEM}, user]
    items: list[Any] = [user]
    messages: list[Any] = [user]
    if with_results:
        called = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": script.TOOL_NAME, "arguments": json.dumps(given)},
            }
            for call_id, given, _ in calls
        ]
        chat += [{"role": "assistant", "content": None, "tool_calls": called}]
        chat += [{"role": "tool", "tool_call_id": call_id, "content": result} for call_id, _, result in calls]
        items += [
            {
                "type": "function_call",
                "call_id": call_id,
                "name": script.TOOL_NAME,
                "arguments": json.dumps(given),
            }
            for call_id, given, _ in calls
        ]
        items += [
            {"type": "function_call_output", "call_id": call_id, "output": result}
            for call_id, _, result in calls
        ]
        used = [
            {"type": "tool_use", "id": call_id, "name": script.TOOL_NAME, "input": given}
            for call_id, given, _ in calls
        ]
        returned = [
            {"type": "tool_result", "tool_use_id": call_id, "content": result} for call_id, _, result in calls
        ]
        messages += [{"role": "assistant", "content": used}, {"role": "user", "content": returned}]
    yield name, "chat", {"messages": chat, "tools": [{"type": "function", "function": FUNCTION}]}
    flat = {"type": "function", **FUNCTION}
    yield name, "responses", {"instructions": script.SYSTEM, "input": items, "tools": [flat]}
    tool = {
        "name": FUNCTION["name"],
        "description": FUNCTION["description"],
        "input_schema": FUNCTION["parameters"],
    }
    yield (
        name,
        "messages",
        {"system": script.SYSTEM, "messages": messages, "tools": [tool], "max_tokens": 200},
    )


def _shortest(api: str) -> Iterator[tuple[str, Any]]:
    user = [{"role": "user", "content": script.FERRY}]
    if api == "responses":
        yield "input", script.FERRY
    else:
        yield "messages", user
        yield "max_tokens", 5


def record(url: str) -> Iterator[Recording]:
    """Yield each answer of the server at `url`, whole and as a stream."""
    with httpx.Client(base_url=url, timeout=120) as client:
        for name, api, request in list_requests():
            for stream in (False, True):
                if stream and name in ("unknown model", "bad request"):
                    continue
                body = {"model": "base", **request, **({"stream": True} if stream else {})}
                if stream and api == "chat":
                    body["stream_options"] = {"include_usage": True}
                yield ask(client, name, api, stream, PATHS[api], body)
        count = {"model": "base", "messages": [{"role": "user", "content": script.FERRY}]}
        yield ask(client, "count tokens", "messages", False, "/v1/messages/count_tokens", count)
        yield ask(client, "no route", "messages", False, "/v1/nothing", count)


def ask(
    client: httpx.Client, name: str, api: str, stream: bool, path: str, body: dict[str, Any]
) -> Recording:
    answer = client.post(path, json=body)
    return Recording(
        name=name,
        api=api,
        stream=stream,
        path=path,
        request=body,
        status=answer.status_code,
        content_type=answer.headers["content-type"],
        body=answer.text,
    )


def main() -> None:
    python = os.environ.get("LEARND_VLLM_PYTHON", ".venv-vllm/bin/python")
    with tempfile.TemporaryDirectory() as folder:
        model = teach_llama(Path(folder) / "model", script.list_lessons(), [script.ENDLESS_ANSWER])
        with run_vllm(
            model,
            python=python,
            log=Path(folder) / "vllm.log",
            max_model_len=MAX_LENGTH,
            eager=True,
            tool_parser="hermes",
        ) as server:
            recordings = [recording.model_dump() for recording in record(server.url)]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(recordings, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
