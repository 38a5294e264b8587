"""Agents on the public SDKs, with a base URL and a key: what they get, and what is learned of their calls."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.demo.vllm import run_vllm
from extractors.examples.types import SFTExample
from extractors.span_parsing.drop_reasons import DropReason
from tests.e2e.conftest import ROOT
from tests.e2e.sdks import script
from tests.e2e.sdks.agents import AGENTS
from tests.e2e.sdks.agents.plain_http import PlainHttp
from tests.e2e.sdks.agents.run import Answers, Report
from tests.e2e.sdks.office import TENANT, TOKEN, Office, normalise, open_office
from tests.e2e.sdks.scripted_model import MAX_LENGTH, teach_llama
from tests.support.phoenix import wait_until

PLAIN = "plain-http"
GUIDE = "guide"
SNIPPETS = re.findall(
    r"^```python\n(.+?)^```",
    (ROOT / "docs/guides/agents.md").read_text("utf-8").partition("\n## With the client")[0],
    re.DOTALL | re.MULTILINE,
)
CALLS = 5
"""Two questions, two for the tools, and the form."""
ENVIRONMENT = {
    **os.environ,
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM asks the internet for prices
}
ANSWERS = Answers(
    talk=[script.FERRY_ANSWER, script.SUNDAY_ANSWER],
    tools=script.TIDES_ANSWER,
    form=script.Berth.model_validate_json(script.BERTH_ANSWER).model_dump(),
)


class Programs:
    """Runs the agents, as programs of their own: one for those of a module, which import the same SDK."""

    def __init__(self, office: Office, folder: Path) -> None:
        self._office = office
        self._folder = folder
        self._errors: dict[str, str] = {}

    def read_report(self, agent: str) -> Report:
        """Return what the agent got; its program is run the first time."""
        module = AGENTS[agent].module
        if module not in self._errors:
            self._errors[module] = self._run(module)
        path = self._folder / f"{agent}.json"
        assert path.exists(), self._errors[module]
        return Report.model_validate_json(path.read_bytes())

    def _run(self, module: str) -> str:
        """Run the agents of a module, and return what the program said of errors."""
        agents = [name for name, place in AGENTS.items() if place.module == module]
        command = [sys.executable, "-m", "tests.e2e.sdks.agents.run", str(self._folder)]
        return subprocess.run(
            [*command, self._office.url, TOKEN, TENANT, *agents],
            cwd=ROOT,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            timeout=180,
            check=False,
        ).stderr


@pytest.fixture(scope="module")
def office(
    phoenix: PhoenixServer, vllm_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    model = teach_llama(folder / "model", script.list_lessons(), [script.ENDLESS_ANSWER])
    with (
        run_vllm(
            model,
            python=vllm_python,
            log=folder / "vllm.log",
            max_model_len=MAX_LENGTH,
            eager=True,
            tool_parser="hermes",
        ) as vllm,
        open_office(
            folder, agents=list_targets(), model=model, vllm=vllm.url, phoenix=phoenix.url
        ) as running,
    ):
        yield running


def list_targets() -> list[str]:
    return [PLAIN, GUIDE, *(f"{name}-{way}" for name in AGENTS for way in ("whole", "streamed", "left"))]


@pytest.fixture(scope="module")
def expected(office: Office) -> list[SFTExample]:
    """The examples of the conversations over plain HTTP, which are what was said."""
    agent = PlainHttp(office.url, TOKEN, f"{TENANT}/{PLAIN}")
    assert Answers(talk=agent.talk(), tools=agent.use_tools(), form=agent.fill_form()) == ANSWERS
    examples = office.read_examples(PLAIN, CALLS)
    said = [example.completion.content for example in examples]
    assert said == [*ANSWERS.talk, "", ANSWERS.tools, script.BERTH_ANSWER]
    assert len(examples[2].completion.tool_calls) == len(script.TIDE)
    return [normalise(example) for example in examples]


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def programs(office: Office, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(office, tmp_path_factory.mktemp("reports"))


@pytest.fixture
def report(programs: Programs, agent: str) -> Report:
    """What the agent got."""
    return programs.read_report(agent)


def test_answers_in_one_piece_become_the_examples_of_plain_http(
    office: Office, agent: str, report: Report, expected: list[SFTExample]
) -> None:
    assert report.whole == ANSWERS
    compare(office.read_examples(f"{agent}-whole", CALLS), expected)


def test_streams_become_the_examples_of_plain_http(
    office: Office, agent: str, report: Report, expected: list[SFTExample]
) -> None:
    assert report.streamed == ANSWERS
    compare(office.read_examples(f"{agent}-streamed", CALLS), expected)


def test_the_sdk_raises_its_own_error_with_the_gateways_words(report: Report) -> None:
    assert "a token of your tenant is needed" in report.denied.message
    assert f"the model `{TENANT}/nobody` does not exist" in report.unknown.message


def test_a_stream_that_is_left_ends_on_the_model_too_and_teaches_nothing(
    office: Office, agent: str, report: Report
) -> None:
    assert report.left_after.startswith("Boats")
    (problem,) = office.read_problems(f"{agent}-left")
    assert problem == "the agent left before it had its answer"
    learned = office.learn(f"{agent}-left", 1)
    assert (learned.items, learned.dropped) == ((), {DropReason.FAILED: 1})
    wait_until(lambda: count_running(office) == 0, 60, "vLLM to stop generating")


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.split()[1])
def test_the_guides_snippet_gets_an_answer(office: Office, snippet: str) -> None:
    places = {
        "http://127.0.0.1:8700": office.url,
        "the agent's token": TOKEN,
        "acme/routing": f"{TENANT}/{GUIDE}",
    }
    for written, real in places.items():
        assert written in snippet
        snippet = snippet.replace(written, real)
    ran = subprocess.run(
        [sys.executable, "-c", snippet],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.split() == [script.COMPLAINT_ANSWER], ran.stderr


def count_running(office: Office) -> int:
    """Return how many requests vLLM is answering."""
    lines = httpx.get(f"{office.settings.replicas[0].url}/metrics", timeout=30).text.splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if line.startswith("vllm:num_requests_running{")
    )


def compare(examples: list[SFTExample], expected: list[SFTExample]) -> None:
    """Assert that they are the same, but for what `normalise` leaves out."""
    examples = [normalise(example) for example in examples]
    assert [each.prompt for each in examples] == [each.prompt for each in expected]
    assert [each.completion for each in examples] == [each.completion for each in expected]
    assert [each.tools for each in examples] == [each.tools for each in expected]
    assert [each.id for each in examples] == [each.id for each in expected]
