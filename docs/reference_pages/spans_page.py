"""The attributes of the spans that learnd writes to Phoenix."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from daemon.gateway.apis import CHAT_COMPLETIONS
from daemon.gateway.attributes import describe_answer, describe_request
from daemon.publishing.span_attributes import EvaluationSpan, ExperimentSpan
from reference_pages.markdown import GENERATED, code, one_line, table

INTRO = """# Spans

learnd writes three kinds of spans to Phoenix: one for each call through the gateway, and two for each run.

"""
GATEWAY = """## Calls through the gateway

With [`gateway.trace`](settings.md#gateway.trace), each call becomes an OpenInference span of kind `LLM` in
the target's project. Besides what every span has, it carries `session.id` from the header `x-learnd-session`,
`user.id` from the request's `user`, and `learnd.tenant`, `learnd.agent`, `learnd.version` and
`learnd.internal` (learnd's own call, never trained on).

The attributes are those of a chat completion, whichever API carried the call: `finish_reason` is `stop`,
`tool_calls`, `length` or `content_filter`, or another word of the API's own.

A call has the status ERROR, and is never trained on, where the agent got an error or left early, or where the
answer does not show its end: a choice without a `finish_reason`, a response that is neither completed nor
incomplete, a message without a `stop_reason`, a stream of theirs without its last event, pieces of a stream
that its last event contradicts, or an event that is no JSON. `[DONE]` is not needed.

`input.value` and `output.value` are the whole bodies, in the form of the call's own API; a stream's answer is
put together. In the other attributes each message, part, tool call and choice has its entry. A part that is
no text, image or thought keeps its own type (`input_audio`, `file`, …); a prompt of token ids has `token_ids`
in place of `text`. These attributes exist, where `0` counts:

"""
RUNS = """## Runs

Each run that trained or judged something is written to the project
[`phoenix.experiments_project`](settings.md#phoenix.experiments_project): an EXPERIMENT span, and below it an
EVALUATION span where the run was judged. An attribute without a value is left out. Where ways to train raced,
each contender has its number: `race.contenders.0` is the default. `general_ability` says what the candidate
[can still do of what its base could](../concepts/training.md#what-the-model-could-do-before): `divergence` is
KL(base‖candidate) in nats a token, and `change` is its agreement minus that of what was live.

"""
REQUEST: dict[str, Any] = {
    "model": "acme/routing",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "…"}, {"type": "image_url", "image_url": {"url": "…"}}],
        },
        {
            "role": "assistant",
            "content": "…",
            "tool_calls": [{"id": "1", "function": {"name": "search", "arguments": "{}"}}],
            "function_call": {"name": "search", "arguments": "{}"},
        },
        {"role": "tool", "name": "search", "tool_call_id": "1", "content": "…"},
    ],
    "tools": [{"type": "function", "function": {"name": "search"}}],
    "prompt": ["…", [1, 2]],
}
ANSWER: dict[str, Any] = {
    "choices": [
        {"message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"},
        {"text": "…", "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def spans_page() -> str:
    """Return the page as Markdown."""
    return GENERATED + INTRO + GATEWAY + _gateway() + RUNS + _run(ExperimentSpan) + _run(EvaluationSpan)


def _gateway() -> str:
    request, answer = CHAT_COMPLETIONS.read_request(REQUEST), CHAT_COMPLETIONS.read_answer(ANSWER)
    written = {**describe_request(REQUEST, request), **describe_answer(ANSWER, answer)}
    names = sorted(
        {".".join("0" if part.isdecimal() else part for part in name.split(".")) for name in written}
    )
    return "".join(f"- {code(name)}\n" for name in names) + "\n"


def _run(span: Any) -> str:
    rows = [
        (code(name), said)
        for group, field in span.model_fields.items()
        for kind in [*get_args(field.annotation)] or [field.annotation]
        for name, said in _attributes(group, kind)
    ]
    return f"### {span.kind}\n\n{one_line(span.__doc__)} Its name is {code(span.operation)}.\n\n" + table(
        ("attribute", "type"), rows
    )


def _attributes(prefix: str, annotation: Any) -> Iterator[tuple[str, str]]:
    """The flat names below a group of attributes."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return
    for name, field in annotation.model_fields.items():
        kinds: list[Any] = [*get_args(field.annotation)] or [field.annotation]
        below = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
        if below:
            # Each entry of a list has its number.
            number = ".0" if get_origin(field.annotation) is tuple else ""
            yield from _attributes(f"{prefix}.{name}{number}", below[0])
        else:
            words = ", ".join(each.__name__ for each in kinds if each is not type(None))
            yield f"{prefix}.{name}", words
