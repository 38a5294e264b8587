"""Tests that personal data is replaced, everything else stays, and no error or log shows it."""

import json
import logging
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from extractors.cleaning.redaction import (
    RECOGNIZERS,
    WINDOW,
    PresidioRedactor,
    Redaction,
    RedactionFailed,
    RedactionRules,
    Redactor,
    RedactorUnusable,
    load_redactor,
)
from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key
from extractors.examples.types import (
    Document,
    Examples,
    JudgedDocument,
    JudgedResponse,
    Message,
    PreferencePair,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
)

ROOT = Path(__file__).resolve().parents[4]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMAIL = "ann.lee@corp.internal"
MAIL = f"My mail is {EMAIL}, please write"
CLEAN_MAIL = "My mail is <EMAIL_ADDRESS>, please write"


@pytest.fixture(scope="module")
def presidio() -> PresidioRedactor:
    redactor = load_redactor(RedactionRules(redactor="presidio"))
    assert isinstance(redactor, PresidioRedactor)
    return redactor


class Fixed:
    """A redactor that knows one address."""

    def __init__(self, rules: RedactionRules | None = None) -> None:
        self.rules = rules

    def redact(self, text: str) -> tuple[str, Mapping[str, int]]:
        return text.replace(EMAIL, "<EMAIL_ADDRESS>"), {"EMAIL_ADDRESS": text.count(EMAIL)}


class Failing:
    def redact(self, text: str) -> tuple[str, Mapping[str, int]]:
        raise ValueError(f"cannot read {text}")


class Wrong:
    def redact(self, text: str) -> str:
        return text


fixed = Fixed()
not_a_redactor = 7


def user(text: str = MAIL) -> Message:
    return Message(role="user", content=text)


def assistant(text: str = MAIL) -> Message:
    return Message(role="assistant", content=text)


# ---- what presidio finds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MAIL, CLEAN_MAIL),
        ("bob@example.com ann@example.com", "<EMAIL_ADDRESS> <EMAIL_ADDRESS>"),
        ("call +1 (212) 555-0199 today", "call <PHONE_NUMBER> today"),
        ("card 4111 1111 1111 1111, exp 12/27", "card <CREDIT_CARD>, exp 12/27"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN <IBAN_CODE>."),
        ("from 192.168.0.1 and 2001:db8::1", "from <IP_ADDRESS> and <IP_ADDRESS>"),
        ("ssn 536-22-1234", "ssn <US_SSN>"),
        ("my ssn is 536221234", "my ssn is <US_SSN>"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "<CRYPTO>"),
        ("order 58850 of 2023-11-05 at 14:12:55", "order 58850 of 2023-11-05 at 14:12:55"),
        ("Where is my parcel? 🙄", "Where is my parcel? 🙄"),
        ("", ""),
    ],
)
def test_presidio_replaces_what_patterns_and_checksums_tell(
    presidio: PresidioRedactor, text: str, expected: str
) -> None:
    without, counts = presidio.redact(text)
    assert without == expected
    assert sum(counts.values()) == without.count("<")
    assert presidio.redact(without) == (without, Counter())


def test_every_entity_that_the_rules_know_can_be_looked_for() -> None:
    redactor = load_redactor(RedactionRules(redactor="presidio", entities=tuple(RECOGNIZERS), language="de"))
    assert redactor is not None
    text = f"{EMAIL} https://example.com/a?b=c 00:1A:2B:3C:4D:5E 2023-11-05"
    assert redactor.redact(text) == (
        "<EMAIL_ADDRESS> <URL> <MAC_ADDRESS> <DATE_TIME>",
        {"EMAIL_ADDRESS": 1, "URL": 1, "MAC_ADDRESS": 1, "DATE_TIME": 1},
    )
    only = load_redactor(RedactionRules(redactor="presidio", entities=("URL",)))
    assert only is not None
    assert only.redact("call +1 212 555 0199")[0] == "call +1 212 555 0199"


def test_nothing_is_cut_in_two_where_a_long_text_is_looked_at_in_parts(presidio: PresidioRedactor) -> None:
    for at in range(WINDOW - 60, WINDOW + 10, 7):
        text = "x" * (at - 1) + f" {EMAIL} " + "word " * 1000 + "4111 1111 1111 1111"
        without, counts = presidio.redact(text)
        assert without == text.replace(EMAIL, "<EMAIL_ADDRESS>").replace(
            "4111 1111 1111 1111", "<CREDIT_CARD>"
        )
        assert counts == {"EMAIL_ADDRESS": 1, "CREDIT_CARD": 1}


@given(before=st.text(max_size=40), after=st.text(max_size=40))
@settings(deadline=None, max_examples=60)
def test_an_address_goes_whatever_stands_around_it(
    presidio: PresidioRedactor, before: str, after: str
) -> None:
    assert EMAIL not in presidio.redact(f"{before} {EMAIL} {after}")[0]


# ---- what is redacted of a record


def test_all_texts_of_every_kind_go_and_ids_roles_and_tools_stay() -> None:
    tools = ({"type": "function", "function": {"name": "f", "description": EMAIL}},)
    ids: dict[str, Any] = {"source_span_ids": (EMAIL,), "session_id": EMAIL, "started_at": NOON}
    asked: dict[str, Any] = {"prompt": (Message(role="system", content=MAIL), user()), "prompt_key": "old"}
    document = Document(id=EMAIL, text=MAIL)
    judged = JudgedDocument(id=EMAIL, text=MAIL, relevant=True)
    traced: dict[str, Any] = {"trace_id": EMAIL, **ids}
    records = [
        SFTExample(completion=assistant(), tools=tools, **asked, **ids),
        PreferencePair(
            chosen=assistant(), rejected=assistant("no"), preferred_by="session", tools=tools, **asked, **ids
        ),
        Triplet(query=MAIL, positive=document, negative=document, prompt_key="old", **ids),
        Trajectory(
            messages=(
                user(),
                assistant(),
                Message(role="tool", content=MAIL, tool_call_id=EMAIL, name=EMAIL),
                assistant(),
            ),
            learned=(1, 3),
            outcome="approved",
            trace_ids=(EMAIL,),
            prompt_keys=("old", "old"),
            **ids,
        ),
        ReviewedItem(
            response=assistant(), outcome="rejected", gold=None, answered_by=EMAIL, **asked, **traced
        ),
        JudgedResponse(response=assistant(), approved=True, judged="candidate", **asked, **traced),
        ReviewedRetrieval(query=MAIL, documents=(judged,), prompt_key="old", **traced),
    ]
    redaction = Redaction(fixed)
    without = redaction.apply(records)
    texts = 0
    for old, new in zip(records, without, strict=True):
        kept = {*ids, "trace_id", "trace_ids", "answered_by", "tools", "outcome", "learned"} & type(
            old
        ).model_fields.keys()
        assert {name: getattr(new, name) for name in kept} == {name: getattr(old, name) for name in kept}
        dumped = new.model_dump_json(exclude={*kept, "prompt_key", "prompt_keys"})
        texts += dumped.count(CLEAN_MAIL)
        assert MAIL not in dumped
        assert new != old
    assert redaction.counts == {"EMAIL_ADDRESS": texts} == {"EMAIL_ADDRESS": 3 + 3 + 3 + 4 + 3 + 3 + 2}
    first, _, triplet, conversation, *_ = without
    assert first.prompt_key == compute_prompt_key((user(CLEAN_MAIL),))
    assert triplet.prompt_key == compute_query_key(CLEAN_MAIL)
    assert conversation.prompt_keys == tuple(compute_prompt_key(conversation.messages[:at]) for at in (1, 3))
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert (conversation.messages[2].name, conversation.messages[2].tool_call_id) == (EMAIL, EMAIL)
    assert triplet.positive.id == EMAIL


def test_what_is_redacted_has_the_id_of_what_it_says_now() -> None:
    example = SFTExample(prompt=(user(),), completion=assistant(), prompt_key="old", started_at=NOON)
    conversation = Trajectory(
        messages=(user(), assistant()),
        learned=(1,),
        outcome="approved",
        prompt_keys=("old",),
        started_at=NOON,
    )
    before = example.id, conversation.id
    examples = Redaction(fixed).apply_to_examples(Examples(sft=(example,), trajectories=(conversation,)))
    clean = SFTExample.model_validate(examples.sft[0].model_dump())
    assert examples.sft[0].id == clean.id != before[0]
    assert examples.trajectories[0].id != before[1]
    assert MAIL not in examples.model_dump_json()


def test_a_models_thoughts_are_redacted_and_none_are_made_up() -> None:
    answer = assistant().model_copy(update={"reasoning": MAIL})
    example = SFTExample(prompt=(user(),), completion=answer, prompt_key="old", started_at=NOON)
    redaction = Redaction(fixed)
    (without,) = redaction.apply([example])
    assert without.completion.reasoning == CLEAN_MAIL
    assert without.prompt[0].reasoning is None
    assert redaction.apply_to_text(MAIL) == CLEAN_MAIL


def test_without_a_redactor_everything_stays() -> None:
    example = SFTExample(prompt=(user(),), completion=assistant(), prompt_key="old", started_at=NOON)
    redaction = Redaction(load_redactor(RedactionRules()))
    assert redaction.apply([example]) == (example,)
    assert redaction.counts == {}


def test_a_record_without_personal_data_stays_as_it_is() -> None:
    example = SFTExample(
        prompt=(user("hi"),), completion=assistant("hello"), prompt_key="as it was", started_at=NOON
    )
    redaction = Redaction(fixed)
    assert redaction.apply([example]) == (example,)
    assert redaction.counts == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"to": "%s",  "n": 3}', '{"to": "<EMAIL_ADDRESS>", "n": 3}'),
        (
            '{"to": ["x", {"a": "é %s\\n"}], "%s": true}',
            '{"to": ["x", {"a": "é <EMAIL_ADDRESS>\\n"}], "%s": true}',
        ),
        ('{"b":1,  "a": null}', '{"b":1,  "a": null}'),
        ('"%s"', '"<EMAIL_ADDRESS>"'),
        ("no JSON: %s", "no JSON: <EMAIL_ADDRESS>"),
    ],
)
def test_arguments_of_tool_calls_stay_json(arguments: str, expected: str) -> None:
    call = Message(
        role="assistant", tool_calls=(ToolCall(id="1", name="f", arguments=arguments.replace("%s", EMAIL)),)
    )
    example = SFTExample(prompt=(user("x"), call), completion=call, prompt_key="k", started_at=NOON)
    (without,) = Redaction(fixed).apply([example])
    assert without.completion.tool_calls[0].arguments == expected.replace("%s", EMAIL)
    assert without.prompt[1] == without.completion
    assert without.completion.tool_calls[0].name == "f"


def test_a_number_that_is_a_card_goes_too(presidio: PresidioRedactor) -> None:
    call = Message(
        role="assistant",
        tool_calls=(ToolCall(name="pay", arguments='{"card": 4111111111111111, "times": 3, "now": true}'),),
    )
    example = SFTExample(prompt=(user("x"),), completion=call, prompt_key="k", started_at=NOON)
    (without,) = Redaction(presidio).apply([example])
    arguments = json.loads(without.completion.tool_calls[0].arguments)
    assert arguments == {"card": "<CREDIT_CARD>", "times": 3, "now": True}


def test_labels_of_the_output_space_stay() -> None:
    examples = [
        SFTExample(prompt=(user(EMAIL),), completion=assistant(answer), prompt_key="k", started_at=NOON)
        for answer in (EMAIL, EMAIL.upper(), f"write to {EMAIL}")
    ]
    without = Redaction(fixed, output_space=(EMAIL, "billing")).apply(examples)
    assert [example.completion.content for example in without] == [
        EMAIL,
        EMAIL.upper(),
        "write to <EMAIL_ADDRESS>",
    ]
    assert {example.prompt[0].content for example in without} == {"<EMAIL_ADDRESS>"}


# ---- nobody hears of it


def test_neither_logs_nor_errors_hold_personal_data(
    presidio: PresidioRedactor, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [
        EMAIL,
        "DE89370400440532013000",
        "4111111111111111",
        "+1 212 555 0199",
        "GB00 ÄÖÜß 0000 0000 0000 00",
    ]
    examples = [
        SFTExample(
            prompt=(user(f"my iban, email and phone: {secret}"),),
            completion=assistant(secret),
            prompt_key="k",
            started_at=NOON,
        )
        for secret in secrets
    ]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("presidio-analyzer").setLevel(logging.DEBUG)
        logging.getLogger("presidio-analyzer").error("Failed to validate text %s", EMAIL)
        Redaction(presidio).apply(examples)
        for redactor in (Failing(), Wrong()):
            with pytest.raises(RedactionFailed) as failed:
                Redaction(redactor).apply(examples)
            told = "".join(traceback.format_exception(failed.value))
            assert not [secret for secret in secrets if secret in told]
            assert f"{type(redactor).__name__} raised ValueError on a text of" in str(failed.value)
            assert failed.value.__context__ is None
    assert not [secret for secret in secrets if secret in caplog.text]


def test_a_pattern_that_gives_up_leaves_nothing_unredacted() -> None:
    code = (
        "from extractors.cleaning.redaction import *\n"
        "rules = RedactionRules(redactor='presidio')\n"
        "first, second = load_redactor(rules), load_redactor(rules)\n"
        "for redactor in (first, second):\n"
        "    try: redactor.redact('mail ann@example.com ' * 1000)\n"
        "    except TimeoutError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "REGEX_TIMEOUT_SECONDS": "0"},  # presidio's own setting
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["a pattern gave up on the text"] * 2


# ---- rules


def test_a_redactor_is_named_by_its_import_path() -> None:
    rules = RedactionRules(redactor=f"{__name__}:Fixed", entities=("PERSON",))
    made: Redactor | None = load_redactor(rules)
    assert type(made).__name__ == "Fixed"
    assert made.rules == rules  # type: ignore[union-attr]
    assert load_redactor(RedactionRules(redactor=f"{__name__}:fixed")) is sys.modules[__name__].fixed
    assert load_redactor(RedactionRules()) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere.to.be:found", "cannot be imported .*install its package"),
        (f"{__name__}:Missing", "cannot be imported"),
        (f"{__name__}:not_a_redactor", r"is no redactor: it takes a method redact\(text\)"),
    ],
)
def test_a_redactor_that_cannot_be_had_says_why(path: str, reason: str) -> None:
    with pytest.raises(RedactorUnusable, match=reason):
        load_redactor(RedactionRules(redactor=path))


def test_wrong_rules_fail_at_once() -> None:
    with pytest.raises(ValidationError, match="'presidio' or an import path"):
        RedactionRules(redactor="presidio_analyzer")
    with pytest.raises(ValidationError, match=r"\['PERSON'\] are none of EMAIL_ADDRESS, "):
        RedactionRules(redactor="presidio", entities=("PERSON",))
    with pytest.raises(RedactorUnusable, match="spaCy has no language 'zz'"):
        load_redactor(RedactionRules(redactor="presidio", language="zz"))


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['presidio_analyzer'] = None\n"
        "from extractors.cleaning.redaction import *\n"
        "assert not {'spacy', 'torch', 'regex'} & sys.modules.keys()\n"
        "try: load_redactor(RedactionRules(redactor='presidio'))\n"
        "except RedactorUnusable as unusable: print(unusable)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'learnd[redact]'" in done.stdout
