"""The APIs of model providers that agents speak, by the path of their route."""

from collections.abc import Mapping

from daemon.gateway.apis.api import Api
from daemon.gateway.apis.completions import CHAT_COMPLETIONS, TEXT_COMPLETIONS
from daemon.gateway.apis.messages import COUNT_TOKENS, MESSAGES
from daemon.gateway.apis.responses import RESPONSES

APIS: Mapping[str, Api] = {
    api.path: api for api in (CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS)
}

__all__ = ["APIS", "CHAT_COMPLETIONS", "COUNT_TOKENS", "MESSAGES", "RESPONSES", "TEXT_COMPLETIONS", "Api"]
