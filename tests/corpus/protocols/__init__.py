"""The protocols of the model's providers, as far as the scripted agent uses them.

Each reads a request into neutral words and writes answers; whatever it does not know is an error, so that
nothing that was said is missing from the truth.
"""

from tests.corpus.protocols import anthropic, bedrock, gemini, openai_chat, openai_responses
from tests.corpus.protocols.protocol import Protocol

PROTOCOLS: tuple[Protocol, ...] = (
    openai_chat.PROTOCOL,
    openai_responses.PROTOCOL,
    anthropic.PROTOCOL,
    gemini.PROTOCOL,
    bedrock.PROTOCOL,
)
