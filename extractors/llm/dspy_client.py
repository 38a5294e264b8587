"""A language model behind any OpenAI-compatible endpoint, asked through DSPy for one text at a time.

Importing this module loads DSPy, so import it only where it is used.

A step of a program is a DSPy signature with one output, shown to the model as a plain conversation
(each demonstration's inputs, then its output): a form that even a model of 135M parameters can continue.
Nothing is cached or recorded, and every request is marked as learnd's own.
"""

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import dspy  # type: ignore[import-untyped]
from dspy import lm15

from extractors.llm.endpoint import (
    INTERNAL_HEADER,
    Endpoint,
    EndpointRefused,
    EndpointUnreachable,
    ModelReply,
    Step,
    StepRequest,
    UnusableReply,
)

# Its files are pickles: whoever can write into the folder runs code here when they are read (CVE-2025-69872).
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)

PROVIDER = "learnd-endpoint"
RETRIES = 1
"""Retries of one call where the endpoint is busy or broke off. DSPy waits as long as the endpoint asks."""
CONNECT_SECONDS = 5.0
REFUSALS = (
    (dspy.LMAuthError, "refused the key", "put the right one where the settings look for it"),
    (dspy.LMBillingError, "wants to be paid", "see to the account there"),
    (dspy.LMUnsupportedModelError, "is not served there", "correct the model's name in the settings"),
    (dspy.LMConfigurationError, "cannot be asked so", "correct it in the settings"),
)
"""Errors that every other request would meet as well, what happened in words, and what to do."""
NO_PAGE = (404, 405)
"""Statuses of a URL at which there is no such API."""


class LanguageModel:
    """Asks one endpoint. Safe to share between threads; close it after the last call."""

    def __init__(self, endpoint: Endpoint, api_key: str | None) -> None:
        self._endpoint = endpoint
        self._api_key = api_key
        self._engine = _Engine(endpoint, api_key)
        # A proposal must be new each time.
        self._lm = dspy.LM(endpoint.model, engine=self._engine, cache=False, num_retries=RETRIES)
        self._adapter = _Conversation()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    @property
    def calls(self) -> int:
        """Requests sent so far, including repeated ones."""
        return self._engine.calls

    def write(self, step: Step, request: StepRequest) -> ModelReply:
        """Write one text. Raises UnusableReply where there is none, EndpointUnreachable, EndpointRefused."""
        predict = dspy.Predict(_build_signature(step))
        config = {"temperature": request.temperature, "seed": request.seed, "max_tokens": request.most_tokens}
        try:
            with dspy.context(lm=self._lm, adapter=self._adapter, disable_history=True, trace=None):
                prediction = predict(
                    demos=[dict(demo) for demo in request.shown], config=config, **request.inputs
                )
        except dspy.AdapterParseError:
            raise UnusableReply("the model wrote nothing") from None
        except dspy.LMError as error:
            # Without its cause, whose words may hold the key.
            raise self._to_error(error) from None
        return ModelReply(text=str(prediction[step.output]), cut_off=self._engine.cut_off)

    def _to_error(self, error: Exception) -> EndpointUnreachable | EndpointRefused:
        """Return the error that says what a `dspy.LMError` means to the operator."""
        details = str(getattr(error, "message", "") or error).strip().split("\n")[0]
        if self._api_key:
            # Some endpoints repeat the key that they do not know.
            details = details.replace(self._api_key, "…")
        where = f"the language model {self._endpoint.model!r} at {self._endpoint.url}"
        for kind, what, advice in REFUSALS:
            if isinstance(error, kind):
                return EndpointRefused(f"{where} {what} ({details}); {advice}", lasting=True)
        if not isinstance(error, dspy.LMInvalidRequestError):
            return EndpointUnreachable(
                f"{where} does not answer ({details}); start it, or correct its URL in the settings"
            )
        if error.status in NO_PAGE:
            advice = "its URL must be that of an OpenAI-compatible API, with its /v1"
            return EndpointRefused(f"{where} is not there ({details}); {advice}", lasting=True)
        advice = "where its context is too short for the prompt, have fewer demonstrations shown"
        return EndpointRefused(f"{where} refused the request ({details}); {advice}")


class _Engine:
    """DSPy's own HTTP client, with our mark on each request.

    DSPy's usual way to add a header (`extra_headers`) would make it load LiteLLM.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None) -> None:
        access = lm15.AccessPolicy(PROVIDER, headers=((INTERNAL_HEADER, "true"),), base_url=endpoint.url)
        provider = lm15.ProviderDefinition.chat(
            access,
            compat=lm15.OpenAIChatCompat.preset("vllm"),
            # Servers without keys take any.
            placeholder_key=None if api_key else "none",
        )
        seconds = endpoint.timeout_seconds
        config = lm15.RouterConfig(
            env={},
            api_keys={PROVIDER: api_key} if api_key else None,
            timeouts=lm15.Timeouts(
                connect=min(CONNECT_SECONDS, seconds), read=seconds, write=seconds, pool=seconds
            ),
            providers=(provider,),
        )
        self._router = lm15.LMRouter(config)
        self._lock = threading.Lock()
        self._last = threading.local()
        self.calls = 0

    @property
    def cut_off(self) -> bool:
        """True where the limit of its length ended this thread's last answer."""
        return bool(self._last.cut_off)

    def complete(self, request: Any) -> Any:
        with self._lock:
            self.calls += 1
        response = self._router.complete(dataclasses.replace(request, model=f"{PROVIDER}:{request.model}"))
        self._last.cut_off = response.finish_reason == "length"
        # A reply that is cut off may still be used: DSPy need not warn of it.
        return dataclasses.replace(response, finish_reason="stop") if self._last.cut_off else response

    def close(self) -> None:
        self._router.close()


class _Conversation(dspy.Adapter):  # type: ignore[misc]
    """A signature as a conversation: the instructions, then inputs and outputs in turns, without markup."""

    def format_system_message(self, signature: Any) -> str:
        return str(signature.instructions)

    def format_user_message_content(
        self,
        signature: Any,
        inputs: Mapping[str, Any],
        prefix: str = "",  # noqa: ARG002
        suffix: str = "",  # noqa: ARG002
        main_request: bool = False,  # noqa: ARG002
    ) -> str:
        return _format_fields(
            [(name, str(inputs[name])) for name in signature.input_fields if name in inputs]
        )

    def format_assistant_message_content(
        self,
        signature: Any,
        outputs: Mapping[str, Any],
        missing_field_message: str | None = None,  # noqa: ARG002
    ) -> str:
        return _format_fields([(name, str(outputs[name])) for name in signature.output_fields])

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Return the whole text: the caller knows the wanted form, and takes it out."""
        (output,) = signature.output_fields
        return {output: completion}


def _format_fields(fields: Sequence[tuple[str, str]]) -> str:
    """Return the one value as it is; of several, each under its name."""
    if len(fields) == 1:
        return fields[0][1]
    return "\n\n".join(f"{name.replace('_', ' ').capitalize()}:\n{value}" for name, value in fields)


def _build_signature(step: Step) -> Any:
    fields = {name: (str, dspy.InputField()) for name in step.inputs}
    return dspy.Signature({**fields, step.output: (str, dspy.OutputField())}, step.instructions)
