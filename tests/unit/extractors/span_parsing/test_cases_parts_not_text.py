"""Images, audio, files and documents: whichever record shows one, the span is no text and teaches nothing."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read_turns, refuse
from tests.support.flat_attributes import (
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

QUESTION = "Where does the hull leak?"
ANSWER = "Below the third rib."
ASKED = {"role": "user", "content": QUESTION}
PNG = "iVBORw0KGgo="
DATA_URL = f"data:image/png;base64,{PNG}"
GAP = None
"""A part that the tracer left out: the numbers of the parts tell that something stood there."""


def write_question(*parts: Any, **further: Any) -> dict[str, Any]:
    """A span whose listed message has the text alone, and whose body has `parts` beside it."""
    body = {"model": "m", "messages": [{"role": "user", "content": [*parts, write_text(QUESTION)]}]}
    return write_llm([ASKED], ANSWER, body=body, **further)


def write_langchain_question(*parts: Any) -> dict[str, Any]:
    message = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"type": "human", "content": [write_text(QUESTION), *parts]},
    }
    listed = {"role": "user", "contents": [write_text(QUESTION)]}
    return write_llm([listed], ANSWER, body={"messages": [[message]]})


def write_responses_question(*parts: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": [*parts, {"type": "input_text", "text": QUESTION}]}
    listed = {"role": "user", "contents": [GAP, write_text(QUESTION)]}
    return write_llm([{}, listed], ANSWER, body={"model": "m", "input": [asked]})


def write_gemini_question(*parts: Any) -> dict[str, Any]:
    body = {"model": "g", "contents": [{"role": "user", "parts": [*parts, {"text": QUESTION}]}]}
    return write_llm([ASKED], ANSWER, body=body)


def write_converse_question(*parts: Any) -> dict[str, Any]:
    listed = {"role": "user", "contents": [GAP, write_text(QUESTION)]}
    return write_llm([listed], ANSWER, body=[{"role": "user", "content": [*parts, {"text": QUESTION}]}])


def write_genai_question(*parts: Any) -> dict[str, Any]:
    return write_genai([{"role": "user", "parts": [*parts, write_part(QUESTION)]}], ANSWER)


ANTHROPIC = [
    pytest.param({"type": kind, "source": source}, id=f"{kind}-{source['type']}")
    for kind, source in (
        ("document", {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0y"}),
        ("document", {"type": "file", "file_id": "file-7"}),
        ("image", {"type": "base64", "media_type": "image/png", "data": PNG}),
        ("image", {"type": "url", "url": "https://boats.test/hull.png"}),
    )
]


@pytest.mark.parametrize("part", ANTHROPIC)
def test_an_anthropic_block_that_only_the_body_shows_is_no_text(part: dict[str, Any]) -> None:
    attributes = write_question(part)
    attributes |= write_llm([{"role": "user", "contents": [GAP, write_text(QUESTION)]}], ANSWER)
    del attributes["llm.input_messages.0.message.content"]
    assert refuse(attributes) is DropReason.NOT_TEXT


OPENAI = [
    {"type": "image_url", "image_url": {"url": DATA_URL}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-7"}},
    {"type": "video_url", "video_url": {"url": "https://boats.test/leak.mp4"}},
    {"type": "audio_url", "audio_url": {"url": "https://boats.test/leak.mp3"}},
]


@pytest.mark.parametrize("part", OPENAI, ids=lambda part: part["type"])
def test_an_openai_part_that_only_the_body_shows_is_no_text(part: dict[str, Any]) -> None:
    assert refuse(write_question(part)) is DropReason.NOT_TEXT


@pytest.mark.parametrize("part", OPENAI, ids=lambda part: part["type"])
def test_an_openai_part_in_the_middle_of_the_history_is_no_text(part: dict[str, Any]) -> None:
    history = [
        {"role": "user", "content": [part, write_text("Look at this.")]},
        {"role": "assistant", "content": "I see a hull."},
        ASKED,
    ]
    listed = [{"role": "user", "content": "Look at this."}, *history[1:]]
    assert refuse(write_llm(listed, ANSWER, body={"messages": history})) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": {"image": {"url": DATA_URL}}},
        {"type": "image", "image": {"image": {"url": "__REDACTED__"}}},
        {"type": "audio", "audio": {"audio": {"url": "https://boats.test/leak.mp3"}}},
        {"type": "file", "file": {"file": {"id": "file-7"}}},
    ],
    ids=["image", "image-without-url", "audio", "file"],
)
def test_a_listed_part_is_no_text(part: dict[str, Any]) -> None:
    listed = {"role": "user", "contents": [write_text(QUESTION), part]}
    assert refuse(write_llm([listed], ANSWER)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
        {"type": "image", "source_type": "url", "url": "https://boats.test/hull.png"},
        {"type": "image_url", "image_url": {"url": DATA_URL}},
        {"type": "file", "base64": "JVBERi0y", "mime_type": "application/pdf"},
        {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"},
        {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://boats/leak.mp4"},
    ],
    ids=["image-base64", "image-url-standard", "image-url-openai", "file", "audio", "media"],
)
def test_a_langchain_block_is_no_text(part: dict[str, Any]) -> None:
    assert refuse(write_langchain_question(part)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_id": "file-7"},
        {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ],
    ids=lambda part: part["type"],
)
def test_a_part_of_a_responses_request_is_no_text(part: dict[str, Any]) -> None:
    assert refuse(write_responses_question(part)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inline_data": {"mime_type": "image/png", "data": PNG}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://boats/plan.pdf"}},
        {"file_data": {"mime_type": "application/pdf", "file_uri": "gs://boats/plan.pdf"}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_a_part_of_a_gemini_request_is_no_text(part: dict[str, Any]) -> None:
    assert refuse(write_gemini_question(part)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"image": {"format": "png", "source": {"bytes": PNG}}},
        {"document": {"format": "pdf", "name": "plan", "source": {"bytes": "JVBERi0y"}}},
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://boats/leak.mp4"}}}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_a_block_of_a_converse_request_is_no_text(part: dict[str, Any]) -> None:
    assert refuse(write_converse_question(part)) is DropReason.NOT_TEXT


GENAI_PARTS = [
    {"type": "blob", "mime_type": "image/png", "data": PNG},
    {"type": "blob", "modality": "image", "mime_type": "image/png", "content": PNG},
    {"type": "file", "modality": "document", "mime_type": "application/pdf", "file_id": "file-7"},
    {"type": "uri", "modality": "image", "mime_type": "image/png", "uri": "https://boats.test/hull.png"},
    {"type": "image-url", "url": "https://boats.test/hull.png"},
    {"type": "audio-url", "url": "https://boats.test/leak.mp3"},
    {"type": "video-url", "url": "https://boats.test/leak.mp4"},
    {"type": "document-url", "url": "https://boats.test/plan.pdf"},
    {"type": "binary", "media_type": "image/png", "content": PNG},
]


@pytest.mark.parametrize("part", GENAI_PARTS, ids=lambda part: "-".join(list(part.values())[:2])[:24])
def test_a_genai_part_is_no_text_whether_phoenix_maps_it_or_not(part: dict[str, Any]) -> None:
    assert refuse(write_genai_question(part)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part", [{"type": "image", "image": DATA_URL}, {"type": "file", "data": "JVBERi0y", "mediaType": "pdf"}]
)
def test_a_part_in_messages_of_the_vercel_sdk_is_no_text(part: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": [write_text(QUESTION), part]}]
    vercel = {
        "operation.name": "ai.generateText.doGenerate",
        "ai.prompt.messages": json.dumps(messages),
        "ai.response.text": ANSWER,
        "ai.response.finishReason": "stop",
        "gen_ai.system": "openai.chat",
        "gen_ai.request.model": "m",
    }
    assert refuse(vercel) is DropReason.NOT_TEXT


def test_an_image_in_the_result_of_a_tool_is_no_text() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": "tu_4", "content": [image, write_text("photo 3")]}
    body = {
        "messages": [
            ASKED,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "tu_4", "name": "photo", "input": {}}],
            },
            {"role": "user", "content": [result]},
        ]
    }
    listed = [
        ASKED,
        {"role": "assistant", "tool_calls": [write_call("tu_4", "photo")]},
        {"role": "user", "content": "photo 3", "tool_call_id": "tu_4"},
    ]
    assert refuse(write_llm(listed, ANSWER, body=body)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": ANSWER,
            "audio": {"id": "audio_1", "data": "UklGRg==", "transcript": ""},
        },
        {"role": "assistant", "content": ANSWER, "images": [{"image_url": {"url": DATA_URL}}]},
    ],
    ids=["audio", "images"],
)
def test_an_answer_that_is_also_heard_or_seen_is_no_text(message: dict[str, Any]) -> None:
    output = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    assert refuse(write_llm([ASKED], ANSWER, output=output)) is DropReason.NOT_TEXT


def test_an_image_in_indexed_attributes_is_no_text() -> None:
    content = '[{"type": "text", "text": "Where?"}, {"type": "image", "source": {"type": "url", "url": "x"}}]'
    attributes = write_indexed([{"role": "user", "content": content}], ANSWER)
    assert refuse(attributes) is DropReason.NOT_TEXT


@pytest.mark.parametrize("kind", ["hologram", "smell_v2"])
def test_a_part_of_a_kind_that_nobody_knows_is_refused(kind: str) -> None:
    reasons = {DropReason.NOT_TEXT, DropReason.MALFORMED}
    assert refuse(write_question({"type": kind, "data": "?"})) in reasons
    assert refuse(write_genai_question({"type": kind, "data": "?"})) in reasons


def test_words_about_an_image_are_text() -> None:
    told = "The picture at https://boats.test/hull.png shows {'type': 'image_url'}."
    assert read_turns(write_llm([{"role": "user", "content": told}], ANSWER)) == [
        Turn("user", told),
        Turn("assistant", ANSWER),
    ]


def test_a_tool_may_be_called_image() -> None:
    answer = {"role": "assistant", "tool_calls": [write_call("c1", "image", type="image", url="plan.png")]}
    assert read_turns(write_llm([ASKED], answer)) == [
        Turn("user", QUESTION),
        Turn("assistant", calls=(Call("image", {"type": "image", "url": "plan.png"}),)),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Rib 3 is rotten."},
        },
        {
            "type": "search_result",
            "source": "log",
            "title": "Log",
            "content": [write_text("Rib 3 is rotten.")],
        },
        {"type": "container_upload", "file_id": "file-7"},
        {"type": "document_url", "document_url": "https://boats.test/plan.pdf"},
    ],
    ids=lambda part: part["type"],
)
def test_a_document_is_no_text_even_where_it_holds_some(part: dict[str, Any]) -> None:
    assert refuse(write_question(part)) in {DropReason.NOT_TEXT, DropReason.MALFORMED}


def test_an_image_in_the_output_of_a_function_is_no_text() -> None:
    output = [{"type": "input_text", "text": "photo 3"}, {"type": "input_image", "image_url": DATA_URL}]
    items = [
        ASKED,
        {"type": "function_call", "call_id": "p1", "name": "photo", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "p1", "output": output},
    ]
    listed = [
        {},
        ASKED,
        {"role": "assistant", "tool_calls": [write_call("p1", "photo")]},
        {"role": "tool", "content": "photo 3", "tool_call_id": "p1"},
    ]
    assert refuse(write_llm(listed, ANSWER, body={"model": "m", "input": items})) is DropReason.NOT_TEXT
    assert refuse(write_llm(None, ANSWER, body={"model": "m", "input": items})) is DropReason.NOT_TEXT


def test_an_image_that_a_genai_tool_gave_is_no_text() -> None:
    given = {"type": "tool_call_response", "id": "p1", "response": [write_part("3"), GENAI_PARTS[0]]}
    messages = [
        {"role": "user", "parts": [write_part(QUESTION)]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "p1", "name": "photo", "arguments": {}}]},
        {"role": "tool", "parts": [given]},
    ]
    assert refuse(write_genai(messages, ANSWER)) is DropReason.NOT_TEXT


@pytest.mark.parametrize("part", GENAI_PARTS[:2], ids=["draft", "current"])
def test_an_image_that_the_model_answered_with_is_no_text(part: dict[str, Any]) -> None:
    answer = {"role": "assistant", "parts": [write_part(ANSWER), part], "finish_reason": "stop"}
    attributes = write_genai([{"role": "user", "parts": [write_part(QUESTION)]}], answer)
    assert refuse(attributes) is DropReason.NOT_TEXT


def test_an_image_beside_the_listed_words_of_an_answer_is_no_text() -> None:
    """The agent kit of Gemini traces the one candidate, without a list of candidates."""
    parts = [{"text": ANSWER}, {"inline_data": {"mime_type": "image/png", "data": PNG}}]
    body = {"model": "g", "contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}
    output = {"content": {"role": "model", "parts": parts}, "finish_reason": "STOP"}
    answer = {"role": "model", "content": ANSWER}
    assert refuse(write_llm([ASKED], answer, body=body, output=output)) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    ("place", "beside"), [(0, {"images": [PNG]}), (1, {"audio": {"id": "audio_2"}})], ids=["images", "audio"]
)
def test_what_stands_beside_the_content_of_a_message_is_no_text(place: int, beside: dict[str, Any]) -> None:
    listed = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": "Hm."}, ASKED]
    messages = [message | (beside if number == place else {}) for number, message in enumerate(listed)]
    assert refuse(write_llm(listed, ANSWER, body={"messages": messages})) is DropReason.NOT_TEXT


def test_an_empty_list_of_images_is_none() -> None:
    body = {"model": "l", "messages": [{**ASKED, "images": []}]}
    assert read_turns(write_llm([ASKED], ANSWER, body=body)) == [
        Turn("user", QUESTION),
        Turn("assistant", ANSWER),
    ]
