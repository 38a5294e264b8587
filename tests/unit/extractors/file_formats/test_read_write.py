"""Examples of every kind go to files and come back equal; files that cannot be imported say why."""

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import (
    Document,
    JudgedDocument,
    Message,
    PreferencePair,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.file_formats.jsonl import FileForm, NotExpressible
from extractors.file_formats.parquet import SCHEMAS, read_columns, write_columns
from extractors.file_formats.read_write import (
    MOST_PROBLEMS,
    FormUnknown,
    ImportInvalid,
    read_records,
    write_records,
)
from extractors.values import Value

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYSTEM = Message(role="system", content="Name the department.")
USER = Message(role="user", content="Where is my parcel?")
ANSWER = Message(role="assistant", content="shipping")
WORSE = Message(role="assistant", content="billing")

AWKWARD = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "\r\n",
        "\x00",
        "\u2028\x85",
        "﻿",
        '"\\',
        "null",
        "[1]",
        "🧑‍🚀",
        "مرحبا",
        "\\ud800",
        "PAR1",
    ]
)
TEXTS = AWKWARD | st.text(max_size=30)
OPTIONAL = st.none() | TEXTS
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
TOOLS = st.lists(st.dictionaries(TEXTS, JSON_VALUES, max_size=3), max_size=2).map(tuple)
CALLS = st.lists(st.builds(ToolCall, id=OPTIONAL, name=TEXTS, arguments=TEXTS), max_size=2).map(tuple)


def build_message(role: str, reasoning: str | None, **fields: Any) -> Message:
    return Message(role=role, reasoning=reasoning if role == "assistant" else None, **fields)


def messages(*roles: str) -> st.SearchStrategy[Message]:
    return st.builds(
        build_message,
        role=st.sampled_from(roles or ("system", "user", "assistant", "tool")),
        content=TEXTS,
        tool_calls=CALLS,
        tool_call_id=OPTIONAL,
        name=OPTIONAL,
        reasoning=st.none() | TEXTS.filter(bool),
    )


ANSWERS = messages("assistant")
PROMPTS = st.lists(messages(), min_size=1, max_size=4).map(tuple)
TIMES = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
    min_value=datetime(1980, 1, 1),  # noqa: DTZ001
)
SEEN: dict[str, Any] = {
    "source_span_ids": st.lists(TEXTS, max_size=3).map(tuple),
    "session_id": OPTIONAL,
    "started_at": TIMES,
}
FROM: dict[str, Any] = {
    "origin": st.sampled_from(["telemetry", "synthetic"]),
    "trace_id": OPTIONAL,
    **SEEN,
}
ASKED: dict[str, Any] = {"prompt": PROMPTS, "tools": TOOLS, "prompt_key": TEXTS}
OUTCOMES = st.sampled_from(["approved", "rejected", "corrected"])
DOCUMENTS = st.builds(Document, id=OPTIONAL, text=TEXTS)
RECORDS: dict[type[Value], st.SearchStrategy[Any]] = {
    SFTExample: st.builds(SFTExample, completion=ANSWERS, **ASKED, **FROM),
    PreferencePair: st.builds(
        PreferencePair,
        chosen=ANSWERS,
        rejected=ANSWERS,
        preferred_by=st.sampled_from(["correction", "same prompt", "candidate", "choice", "session"]),
        **ASKED,
        **FROM,
    ),
    UnpairedPreference: st.builds(
        UnpairedPreference, completion=ANSWERS, desirable=st.booleans(), **ASKED, **FROM
    ),
    Triplet: st.builds(
        Triplet, query=TEXTS, positive=DOCUMENTS, negative=DOCUMENTS, prompt_key=TEXTS, **FROM
    ),
    Trajectory: st.builds(
        Trajectory,
        messages=PROMPTS,
        learned=st.lists(st.integers(0, 3), max_size=3).map(tuple),
        tools=TOOLS,
        outcome=st.sampled_from(["approved", "corrected"]),
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        trace_ids=st.lists(TEXTS, max_size=2).map(tuple),
        prompt_keys=st.lists(TEXTS, max_size=2).map(tuple),
        turn_span_ids=st.lists(st.lists(TEXTS, max_size=2).map(tuple), max_size=2).map(tuple),
        **FROM,
    ),
    ReviewedItem: st.builds(
        ReviewedItem,
        response=ANSWERS,
        outcome=OUTCOMES,
        gold=st.none() | ANSWERS,
        trace_id=TEXTS,
        verdict_rank=st.integers(0, 2),
        verdict_at=st.none() | TIMES,
        answered_by=OPTIONAL,
        **ASKED,
        **SEEN,
    ),
    ReviewedRetrieval: st.builds(
        ReviewedRetrieval,
        query=TEXTS,
        documents=st.lists(
            st.builds(JudgedDocument, id=OPTIONAL, text=TEXTS, relevant=st.none() | st.booleans()),
            max_size=3,
        ).map(tuple),
        trace_id=TEXTS,
        prompt_key=TEXTS,
        **SEEN,
    ),
}
EXAMPLES = [kind for kind in RECORDS if kind not in (ReviewedItem, ReviewedRetrieval)]
KINDS = pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
EXAMPLE_KINDS = pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)


def build_sft(*prompt: Message, completion: Message = ANSWER, **changes: Any) -> SFTExample:
    prompt = prompt or (SYSTEM, USER)
    given = {"prompt_key": compute_prompt_key(prompt), "started_at": NOON, "source_span_ids": ("a", "b")}
    return SFTExample(prompt=prompt, completion=completion, **{**given, **changes})


def build_vote(desirable: bool) -> UnpairedPreference:
    return UnpairedPreference(
        prompt=(USER,), completion=ANSWER, desirable=desirable, prompt_key="k", started_at=NOON
    )


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(kind: type[Any], path: Path, form: FileForm | None = None, **options: Any) -> tuple[Any, ...]:
    return read_records(kind, path, form, now=NOON, **options)


# ---- round trip


@KINDS
def test_a_schema_has_every_field(kind: type[Value]) -> None:
    assert set(SCHEMAS[kind].names) == set(kind.model_fields)


@KINDS
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_every_kind_comes_back_equal_from_columns(kind: type[Value], data: st.DataObject) -> None:
    records = data.draw(st.lists(RECORDS[kind], min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        write_columns(records, kind, Path(folder, "records"))
        assert read_columns(kind, Path(folder, "records")) == tuple(records)


@EXAMPLE_KINDS
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_every_kind_of_example_comes_back_equal(kind: type[Value], ending: str, data: st.DataObject) -> None:
    records = data.draw(st.lists(RECORDS[kind], min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"records.{ending}")
        assert write_records(records, kind, path) == len(records)
        assert read(kind, path) == tuple(records)
        assert [record.id for record in read(kind, path)] == [record.id for record in records]
        assert list(Path(folder).iterdir()) == [path]


@KINDS
def test_no_record_at_all_is_a_parquet_file_with_columns(kind: type[Value], tmp_path: Path) -> None:
    write_columns([], kind, tmp_path / "none.parquet")
    assert read_columns(kind, tmp_path / "none.parquet") == ()
    assert pq.read_schema(tmp_path / "none.parquet").equals(SCHEMAS[kind])


OLD_LINE = (
    '{"prompt": [{"role": "system", "content": "Name the department."}, {"role": "user", "content": "My '
    'parcel is late"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", '
    '"function": {"name": "track", "arguments": "{\\"parcel\\": 7}"}}]}, {"role": "tool", "content": "on its '
    'way", "tool_call_id": "c1", "name": "track"}], "completion": [{"role": "assistant", "content": '
    '"shipping"}], "id": "e484e562386f728b378321fa5bc9fca7", "prompt_key": "k", "origin": "telemetry", '
    '"source_span_ids": [], "session_id": null, "started_at": "2026-03-01T12:00:00Z"}'
)
"""Written before messages had thoughts."""


def test_an_example_that_was_written_before_there_were_thoughts_keeps_its_id(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(OLD_LINE, "utf-8")
    (example,) = read(SFTExample, path)
    assert example.id == json.loads(OLD_LINE)["id"]
    assert example.prompt_key == "k", "the id that the line names is that of its content"
    write_records([example], SFTExample, tmp_path / "new.jsonl")
    assert json.loads((tmp_path / "new.jsonl").read_text("utf-8")) == json.loads(OLD_LINE)


def test_columns_that_were_written_before_there_were_thoughts_are_read(tmp_path: Path) -> None:
    """Parquet files had the same columns, whose messages had one field less, and no traces."""
    path = tmp_path / "old.jsonl"
    path.write_text(OLD_LINE, "utf-8")
    (example,) = read(SFTExample, path)
    message = pa.struct(
        [field for field in SCHEMAS[SFTExample].field("completion").type if field.name != "reasoning"]
    )
    kinds = {"prompt": pa.list_(message), "completion": message}
    columns = [field for field in SCHEMAS[SFTExample] if field.name != "trace_id"]
    old = pa.schema([(field.name, kinds.get(field.name, field.type)) for field in columns])
    row = {**example.model_dump(), "tools": "[]"}
    pq.write_table(pa.Table.from_pylist([row], schema=old), tmp_path / "old.parquet")
    (found,) = read_columns(SFTExample, tmp_path / "old.parquet")
    assert (found, found.id) == (example, example.id)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_megabyte_of_text_comes_back(ending: str, tmp_path: Path) -> None:
    long = "Ünï\n\u2028" * 200_000
    example = build_sft(
        Message(role="user", content=long), completion=Message(role="assistant", content=long)
    )
    write_records([example] * 3, SFTExample, tmp_path / f"long.{ending}")
    assert read(SFTExample, tmp_path / f"long.{ending}") == (example,) * 3


def test_more_records_than_a_row_group_keep_their_order(tmp_path: Path) -> None:
    examples = [build_sft(Message(role="user", content=str(n))) for n in range(2500)]
    write_columns(examples, SFTExample, tmp_path / "many.parquet")
    assert read_columns(SFTExample, tmp_path / "many.parquet") == tuple(examples)


SIMPLE = st.lists(TEXTS, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1)


@pytest.mark.parametrize("form", [FileForm.CHAT, FileForm.INSTRUCTION, FileForm.CLASSIFICATION])
@given(texts=SIMPLE, system=st.none() | TEXTS.filter(bool), answer=TEXTS, tools=TOOLS)
@settings(deadline=None)
def test_sft_examples_come_back_from_every_form_or_are_refused(
    form: FileForm, texts: list[str], system: str | None, answer: str, tools: tuple[dict[str, Any], ...]
) -> None:
    turns = [Message(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(texts)]
    prompt = [Message(role="system", content=system)] if system else []
    example = build_sft(*prompt, *turns, completion=Message(role="assistant", content=answer), tools=tools)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "examples.jsonl")
        if form is FileForm.CLASSIFICATION and len(turns) > 1:
            with pytest.raises(NotExpressible, match="item 1: the form 'classification' has no place"):
                write_records([build_sft(), example], SFTExample, path, form)
            assert list(Path(folder).iterdir()) == []
        else:
            write_records([build_sft(), example], SFTExample, path, form)
            assert read(SFTExample, path, form) == (build_sft(), example)


@pytest.mark.parametrize("form", [FileForm.INSTRUCTION, FileForm.CLASSIFICATION])
@pytest.mark.parametrize(
    "example",
    [
        build_sft(completion=Message(role="assistant", tool_calls=(ToolCall(name="f", arguments="{}"),))),
        build_sft(USER, USER),
        build_sft(USER, SYSTEM),
        build_sft(SYSTEM, SYSTEM, USER),
        build_sft(USER, ANSWER),
        build_sft(SYSTEM),
        build_sft(Message(role="user", content="hi", name="ann")),
        build_sft(completion=Message(role="assistant", content="shipping", reasoning="A parcel.")),
        build_sft(Message(role="tool", content="42", tool_call_id="1")),
    ],
)
def test_a_form_that_would_lose_something_refuses(
    example: SFTExample, form: FileForm, tmp_path: Path
) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text("as it was")
    with pytest.raises(NotExpressible, match="item 0"):
        write_records([example], SFTExample, path, form)
    assert [found.read_text() for found in tmp_path.iterdir()] == ["as it was"]


def test_a_kind_without_the_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotExpressible, match="votes cannot be written or read as 'classification'"):
        write_records(
            [build_vote(True)], UnpairedPreference, tmp_path / "votes.jsonl", FileForm.CLASSIFICATION
        )
    with pytest.raises(NotExpressible, match="votes cannot be written or read as 'chat'"):
        write_records([], UnpairedPreference, tmp_path / "votes.jsonl", FileForm.CHAT)


# ---- what other tools read and write


def test_lines_have_the_fields_that_trl_and_sentence_transformers_read(tmp_path: Path) -> None:
    pair = PreferencePair(
        prompt=(USER,),
        chosen=ANSWER,
        rejected=WORSE,
        preferred_by="correction",
        tools=({"type": "function", "function": {"name": "f"}},),
        prompt_key="k",
        started_at=NOON,
    )
    write_records([pair], PreferencePair, tmp_path / "pairs.jsonl")
    line = json.loads((tmp_path / "pairs.jsonl").read_text("utf-8"))
    user, chosen, rejected = (
        [{"role": "user", "content": USER.content}],
        [{"role": "assistant", "content": "shipping"}],
        [{"role": "assistant", "content": "billing"}],
    )
    assert (line["prompt"], line["chosen"], line["rejected"]) == (user, chosen, rejected)
    assert json.loads(line["tools"]) == list(pair.tools)
    write_records([build_vote(False)], UnpairedPreference, tmp_path / "votes.jsonl")
    line = json.loads((tmp_path / "votes.jsonl").read_text("utf-8"))
    assert (line["prompt"], line["completion"], line["label"]) == (user, chosen, False)
    triplet = Triplet(
        query="q",
        positive=Document(id="7", text="yes"),
        negative=Document(text="no"),
        prompt_key="k",
        started_at=NOON,
    )
    write_records([triplet], Triplet, tmp_path / "triplets.jsonl")
    line = json.loads((tmp_path / "triplets.jsonl").read_text("utf-8"))
    assert list(line)[:3] == ["anchor", "positive", "negative"]
    assert (line["anchor"], line["positive"], line["negative"]) == ("q", "yes", "no")


@pytest.mark.parametrize(
    ("form", "line", "prompt", "completion"),
    [
        (
            FileForm.JSONL,
            {"prompt": "Where is it?", "completion": "shipping", "topic": 3},
            [("user", "Where is it?")],
            "shipping",
        ),
        (
            FileForm.CHAT,
            {
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                    {"role": "assistant", "content": "Hello"},
                ]
            },
            [("system", "Be brief."), ("user", "Hi")],
            "Hello",
        ),
        (
            FileForm.INSTRUCTION,
            {"instruction": "Translate.", "input": "Hund", "output": "dog", "system": ""},
            [("user", "Translate.\nHund")],
            "dog",
        ),
        (
            FileForm.INSTRUCTION,
            {"instruction": "And two?", "output": "two", "history": [["One?", "one"]]},
            [("user", "One?"), ("assistant", "one"), ("user", "And two?")],
            "two",
        ),
        (
            FileForm.CLASSIFICATION,
            {"text": "Where is it?", "label": "shipping"},
            [("user", "Where is it?")],
            "shipping",
        ),
    ],
)
@pytest.mark.parametrize("as_array", [False, True])
def test_files_of_other_tools_make_sft_examples(
    form: FileForm,
    line: dict[str, Any],
    prompt: Sequence[tuple[str, str]],
    completion: str,
    as_array: bool,
    tmp_path: Path,
) -> None:
    path = tmp_path / "theirs.json"
    path.write_text("\ufeff" + (json.dumps([line], indent=1) if as_array else json.dumps(line)), "utf-8")
    (example,) = read(SFTExample, path, form)
    assert [(message.role, message.content) for message in example.prompt] == list(prompt)
    assert example.completion == Message(role="assistant", content=completion)
    assert example.prompt_key == compute_prompt_key(example.prompt)
    assert (example.started_at, example.origin) == (NOON, "telemetry")
    (told,) = read(SFTExample, path, form, system="Decide.")
    first = told.prompt[0]
    assert (first.role, first.content) == ("system", prompt[0][1] if prompt[0][0] == "system" else "Decide.")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_read_under_each_of_their_names_and_written_under_one(name: str, tmp_path: Path) -> None:
    chat = [USER.to_chat(), {"role": "assistant", "content": "shipping", name: "A parcel, then."}]
    (example,) = read(SFTExample, write_lines(tmp_path / "theirs.jsonl", {"messages": chat}), FileForm.CHAT)
    assert example.completion == ANSWER.model_copy(update={"reasoning": "A parcel, then."})
    write_records([example], SFTExample, tmp_path / "ours.jsonl")
    written = json.loads((tmp_path / "ours.jsonl").read_text("utf-8"))["completion"][0]
    assert written["reasoning_content"] == "A parcel, then."
    assert read(SFTExample, tmp_path / "ours.jsonl") == (example,)


def test_empty_thoughts_and_those_of_a_user_are_none(tmp_path: Path) -> None:
    chat = [
        {**USER.to_chat(), "reasoning": "?"},
        {**ANSWER.to_chat(), "reasoning_content": "", "thinking": None},
    ]
    (example,) = read(SFTExample, write_lines(tmp_path / "theirs.jsonl", {"messages": chat}), FileForm.CHAT)
    assert (*example.prompt, example.completion) == (USER, ANSWER)


def test_a_conversation_of_another_tool_learns_all_its_answers(tmp_path: Path) -> None:
    chat = [message.to_chat() for message in (USER, ANSWER, USER, WORSE)]
    path = write_lines(tmp_path / "theirs.jsonl", {"messages": chat})
    (found,) = read(Trajectory, path)
    assert (found.learned, found.outcome, len(found.prompt_keys)) == ((1, 3), "approved", 2)
    (told,) = read(Trajectory, path, system="Be brief.")
    assert (told.learned, told.messages[0].content) == ((2, 4), "Be brief.")


def test_a_system_prompt_from_outside_leaves_the_learned_turns_where_they_are(tmp_path: Path) -> None:
    kept = Trajectory(
        messages=(USER, WORSE, USER, ANSWER),
        learned=(3,),
        outcome="corrected",
        prompt_keys=("a", "b"),
        started_at=NOON,
    )
    write_records([kept], Trajectory, tmp_path / "kept.jsonl")
    (told,) = read(Trajectory, tmp_path / "kept.jsonl", system="Be brief.")
    assert [told.messages[at].content for at in told.learned] == ["shipping"]


def test_a_line_that_somebody_changed_gets_the_key_of_what_it_says_now(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_records([build_sft(prompt_key="as extracted")], SFTExample, path)
    assert read(SFTExample, path)[0].prompt_key == "as extracted"
    path.write_text(path.read_text("utf-8").replace("parcel", "invoice"), "utf-8")
    (changed,) = read(SFTExample, path)
    assert changed.prompt_key == compute_prompt_key(changed.prompt) != "as extracted"


# ---- files that cannot be imported


def test_all_problems_are_listed_with_item_and_line_and_nothing_is_imported(tmp_path: Path) -> None:
    good = {"prompt": "hi", "completion": "hello"}
    path = tmp_path / "examples.jsonl"
    lines = [
        json.dumps(good),
        "",
        json.dumps({"prompt": "hi"}),
        "{",
        "[]",
        json.dumps({**good, "prompt": 3}),
        json.dumps({**good, "prompt": [{"role": "user", "content": 3}]}),
        json.dumps({**good, "prompt": [{"role": "robot", "content": "x"}]}),
        json.dumps({**good, "completion": [{"role": "user", "content": "x"}]}),
        json.dumps({**good, "completion": []}),
        json.dumps({**good, "started_at": "2026-03-01T12:00:00"}),
        json.dumps({**good, "started_at": "noon"}),
        json.dumps({**good, "source_span_ids": 7}),
        json.dumps({**good, "tools": "{"}),
        json.dumps({**good, "prompt": "\ud800"}),
        json.dumps({**good, "completion": {"role": "assistant", "content": "x", "thinking": ["y"]}}),
        '{"prompt": NaN, "completion": "x"}',
        "[" * 100_000,
    ]
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(ImportInvalid) as refused:
        read(SFTExample, path)
    expected = [
        "item 1 (line 3): it has no completion",
        "item 2 (line 4): it is not JSON (Expecting property name enclosed in double quotes at column 2)",
        "item 3 (line 5): it is no JSON object, but a list",
        "item 4 (line 6): prompt is no list of messages",
        "item 5 (line 7): prompt[0].content is not text",
        "item 6 (line 8): prompt[0].role is none of system, user, assistant and tool",
        "item 7 (line 9): completion is said by the user, not by the assistant",
        "item 8 (line 10): completion is no chat message, but a list",
        "item 9 (line 11): started_at has no time zone",
        "item 10 (line 12): started_at: Input should be a valid datetime",
        "item 11 (line 13): source_span_ids: Input should be a valid tuple",
        "item 12 (line 14): tools is not JSON",
        "item 13 (line 15): it holds text that is not valid Unicode",
        "item 14 (line 16): completion.thinking is no text, but a list",
        "item 15 (line 17): it is not JSON that can be read (NaN is no JSON number)",
        "item 16 (line 18): it is not JSON that can be read",
    ]
    assert len(refused.value.problems) == len(expected)
    for problem, words in zip(refused.value.problems, expected, strict=True):
        assert problem.startswith(words)
    assert str(refused.value).startswith(f"nothing was imported from {path}: item 1 (line 3)")


def test_a_conversation_that_was_rejected_is_named_and_refused(tmp_path: Path) -> None:
    chat = [message.to_chat() for message in (USER, ANSWER)]
    good, bad = {"messages": chat}, {"messages": chat, "outcome": "rejected"}
    with pytest.raises(
        ImportInvalid, match=r"imported from .*: item 1 \(line 2\): the conversation was reje"
    ):
        read(Trajectory, write_lines(tmp_path / "chats.jsonl", good, bad))
    (kept,) = read(Trajectory, write_lines(tmp_path / "good.jsonl", good))
    path = tmp_path / "chats.parquet"
    write_records([kept, kept.model_copy(update={"outcome": "rejected"})], Trajectory, path)
    with pytest.raises(ImportInvalid, match="item 1: the conversation was rejected"):
        read(Trajectory, path)


def test_the_error_lists_problems_up_to_a_limit_and_counts_the_rest(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", *[{"prompt": "x"}] * (MOST_PROBLEMS + 5))
    with pytest.raises(ImportInvalid, match=r"item 19 .*; and 5 more$") as refused:
        read(SFTExample, path)
    assert "item 20" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"[]", "it is empty"),
        (
            '{"prompt": "Köln", "completion": "x"}'.encode("latin-1"),
            r"line 1 is not UTF-8 \(byte 0xf6 at 13\)",
        ),
        ('{"prompt": "x", "completion": "y"}'.encode("utf-16"), "is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "is not UTF-8"),
        (b'[{"prompt": "x"', "it begins as a JSON array, but it is not JSON"),
        (b"PAR1....", "it is a Parquet file"),
    ],
)
def test_a_file_that_is_none_says_so(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    with pytest.raises(ImportInvalid, match=reason):
        read(SFTExample, path)


def test_what_is_missing_or_no_file_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.jsonl", tmp_path, tmp_path / "nowhere.parquet"):
        with pytest.raises(ImportInvalid, match="cannot be read"):
            read(SFTExample, path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    votes = tmp_path / "votes.jsonl"
    write_records([build_vote(False)], UnpairedPreference, votes)
    with pytest.raises(ImportInvalid, match="these are votes, not SFT examples"):
        read(SFTExample, votes)
    write_records([build_sft()], SFTExample, tmp_path / "sft.jsonl")
    with pytest.raises(ImportInvalid, match="no chosen and no rejected; this looks like SFT examples"):
        read(PreferencePair, tmp_path / "sft.jsonl")
    with pytest.raises(
        ImportInvalid, match=r"no prompt and no completion; .* SFT examples in the form 'classification'"
    ):
        read(SFTExample, write_lines(tmp_path / "labels.jsonl", {"text": "a", "label": "b"}))
    unhappy = Trajectory(
        messages=(USER, ANSWER), learned=(), outcome="rejected", prompt_keys=("k",), started_at=NOON
    )
    write_records([unhappy], Trajectory, tmp_path / "chats.jsonl")
    with pytest.raises(ImportInvalid, match="these are conversations, not SFT examples"):
        read(SFTExample, tmp_path / "chats.jsonl", FileForm.CHAT)
    with pytest.raises(ImportInvalid, match="label is no text, but a number"):
        read(
            SFTExample,
            write_lines(tmp_path / "classes.jsonl", {"text": "a", "label": 4}),
            FileForm.CLASSIFICATION,
        )


def test_parquet_that_is_not_ours_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "theirs.parquet"
    write_columns([build_vote(True)], UnpairedPreference, path)
    with pytest.raises(
        ImportInvalid, match=r"not those of preference pairs: no \['chosen'.*looks like votes"
    ):
        read(PreferencePair, path)
    path.write_bytes(b"no parquet")
    with pytest.raises(ImportInvalid, match="cannot be read as Parquet"):
        read(SFTExample, path)
    write_columns([build_sft(), build_sft()], SFTExample, path)
    table = pq.read_table(path)
    column = table.schema.get_field_index("origin")
    pq.write_table(table.set_column(column, "origin", pa.array(["telemetry", "guessed"])), path)
    with pytest.raises(ImportInvalid, match="item 1: origin: Input should be 'telemetry' or 'synthetic'"):
        read(SFTExample, path)
    pq.write_table(
        table.set_column(table.schema.get_field_index("tools"), "tools", pa.array(["[]", "{"])), path
    )
    with pytest.raises(ImportInvalid, match="item 1: "):
        read(SFTExample, path)


def test_an_error_does_not_repeat_what_somebody_wrote(tmp_path: Path) -> None:
    secret = "my number is 555-0199"
    lines = [{"prompt": secret, "completion": 3}, {"prompt": "x", "completion": "y", "origin": secret}]
    with pytest.raises(ImportInvalid) as refused:
        read(SFTExample, write_lines(tmp_path / "bad.jsonl", *lines))
    assert secret not in str(refused.value)


@pytest.mark.parametrize("name", ["examples.csv", "EXAMPLES.XLSX"])
def test_a_file_that_looks_like_a_table_of_another_program_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FormUnknown, match=r"end in \.jsonl or \.parquet"):
        write_records((), SFTExample, tmp_path / name)
    assert not (tmp_path / name).exists()
