"""A call: what a task returns or yields, checked and completed into an API body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lowtide import schema
from lowtide.errors import EndpointNotBatchable, InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
IMAGES = "/v1/images/generations"

# Where a bare prompt goes in the body of each endpoint that has a batch form.
PROMPT_FIELD: Mapping[str, str] = {
    CHAT: "messages",
    RESPONSES: "input",
    EMBEDDINGS: "input",
    COMPLETIONS: "prompt",
    MODERATIONS: "input",
    IMAGES: "prompt",
    "/v1/images/edits": "prompt",
    "/v1/videos": "prompt",
}

# The field in which a call may have several inputs, each with an answer of its own.
_SEVERAL = {EMBEDDINGS: "input", MODERATIONS: "input", COMPLETIONS: "prompt"}


@dataclass(frozen=True, slots=True)
class Call:
    """One model call as a task asks for it; made by `chat`, `respond`, `embed` and others.

    Attributes:
        endpoint: Path of the API, such as "/v1/chat/completions".
        body: The API body; `model` may be missing when the task names one.
        output: Pydantic model that the answer has to validate against.
    """

    endpoint: str
    body: dict[str, Any] = field(repr=False)
    output: type[BaseModel] | None = None

    @property
    def many(self) -> bool:
        """True when the answer is a list: a call for several embeddings, judgements or pictures.

        One input may be a list too: of tokens, or of the parts of one message.
        """
        if self.endpoint == IMAGES:
            return (self.body.get("n") or 1) != 1
        given = self.body.get(_SEVERAL.get(self.endpoint, ""))
        if not isinstance(given, list | tuple):
            return False
        if self.endpoint == MODERATIONS:
            return all(isinstance(item, str) for item in given)
        return any(not isinstance(item, int) for item in given)


def chat(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    output: type[BaseModel] | None = None,
    system: str | None = None,
    **params: Any,
) -> Call:
    """A call of `/v1/chat/completions`.

    Args:
        prompt: What the user says, or a whole list of messages.
        model: Model name; the task's own when left out.
        output: Pydantic model for structured output.
        system: Instructions, put before the messages.
        params: Other parameters of the API, such as `reasoning_effort="low"`.
    """
    messages = _messages(prompt)
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return _call(CHAT, {"messages": messages, **params}, model, output)


def respond(
    input: str | Sequence[Mapping[str, Any]],  # noqa: A002 - the API's own name
    *,
    model: str | None = None,
    output: type[BaseModel] | None = None,
    instructions: str | None = None,
    **params: Any,
) -> Call:
    """A call of `/v1/responses`.

    Args:
        input: What the user says, or a whole list of input items.
        model: Model name; the task's own when left out.
        output: Pydantic model for structured output.
        instructions: Instructions, which go before the input.
        params: Other parameters of the API.
    """
    body: dict[str, Any] = {"input": input, **params}
    if instructions is not None:
        body["instructions"] = instructions
    return _call(RESPONSES, body, model, output)


def embed(
    input: str | Sequence[str],  # noqa: A002 - the API's own name
    *,
    model: str | None = None,
    **params: Any,
) -> Call:
    """A call of `/v1/embeddings`: one vector for a str, a list of vectors for a list of str."""
    given = input if isinstance(input, str) else list(input)
    return _call(EMBEDDINGS, {"input": given, **params}, model, None)


def complete(
    prompt: str | Sequence[str],
    *,
    model: str | None = None,
    **params: Any,
) -> Call:
    """A call of the older `/v1/completions`: one text for a str, a list of texts for a list."""
    given = prompt if isinstance(prompt, str) else list(prompt)
    return _call(COMPLETIONS, {"prompt": given, **params}, model, None)


def moderate(
    input: str | Sequence[str] | Sequence[Mapping[str, Any]],  # noqa: A002 - the API's own name
    *,
    model: str | None = None,
    **params: Any,
) -> Call:
    """A call of `/v1/moderations`.

    Args:
        input: A text, a list of texts (one judgement each), or the parts of one message, texts
            and images, as the API has them.
        model: Model name; the task's own when left out.
        params: Other parameters of the API.
    """
    given = input if isinstance(input, str) else list(input)
    return _call(MODERATIONS, {"input": given, **params}, model, None)


def image(prompt: str, *, model: str | None = None, n: int = 1, **params: Any) -> Call:
    """A call of `/v1/images/generations`.

    Args:
        prompt: What the picture shows.
        model: Model name; the task's own when left out.
        n: How many pictures.
        params: Other parameters of the API, such as `size="1024x1024"`.
    """
    return _call(IMAGES, {"prompt": prompt, "n": n, **params}, model, None)


def _call(
    endpoint: str, body: dict[str, Any], model: str | None, output: type[BaseModel] | None
) -> Call:
    if model is not None:
        body["model"] = model
    return Call(endpoint, body, output)


def to_call(
    returned: object,
    *,
    endpoint: str = CHAT,
    model: str | None = None,
    output: type[BaseModel] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Call:
    """What a task returned or yielded, as a complete call.

    Args:
        returned: A prompt (str), a list of messages or inputs, a full body (dict), or a `Call`.
        endpoint: The task's endpoint; a `Call` brings its own.
        model: The task's model, used when the body names none.
        output: The task's output model, used when the call has none of its own.
        params: The task's parameters, used where the body does not set them.

    Raises:
        InvalidRequest: There is no model or no prompt, `stream` is set, or `returned` is of
            another type.
        EndpointNotBatchable: The endpoint has no batch form.
    """
    if isinstance(returned, Call):
        call = returned
    elif isinstance(returned, Mapping):
        call = Call(endpoint, dict(returned))
    else:
        call = Call(endpoint, {PROMPT_FIELD.get(endpoint, "input"): _prompt(returned, endpoint)})
    # Another endpoint's parameters mean nothing to a call that went elsewhere.
    defaults = dict(params or {}) if call.endpoint == endpoint else {}
    body = {**defaults, **call.body}
    if body.get("model") is None and model is not None:
        body["model"] = model
    wanted = call.output or (output if call.endpoint in (CHAT, RESPONSES) else None)
    _check(call.endpoint, body, wanted)
    if wanted is not None:
        _ask_for(wanted, call.endpoint, body)
    return Call(call.endpoint, body, wanted)


def _messages(prompt: object) -> list[Any]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return list(prompt) if isinstance(prompt, Sequence) else [prompt]


def _prompt(returned: object, endpoint: str) -> Any:
    if isinstance(returned, str):
        return _messages(returned) if endpoint == CHAT else returned
    if isinstance(returned, list | tuple):
        return list(returned)
    raise InvalidRequest(
        f"The task gave {_kind(returned)} as its request; return a str, a list of messages, "
        "a full body as a dict, or chat(...), respond(...), embed(...) and the like."
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _check(endpoint: str, body: Mapping[str, Any], output: object) -> None:
    if endpoint not in PROMPT_FIELD:
        raise EndpointNotBatchable(
            f"Endpoint {endpoint!r} has no batch form; use one of {', '.join(PROMPT_FIELD)}.",
            {"param": "endpoint"},
        )
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest(
            "The request names no model; set model= on the task, on the call, or in the body.",
            {"code": "missing_model", "param": "model"},
        )
    if body.get("stream"):
        raise InvalidRequest(
            "The request sets stream: true, which batches do not allow; leave it out.",
            {"code": "streaming_unsupported", "param": "stream"},
        )
    if endpoint == CHAT:
        _check_messages(body)
    if output is not None and endpoint not in (CHAT, RESPONSES):
        raise InvalidRequest(
            f"output= needs {CHAT} or {RESPONSES}, not {endpoint}.", {"param": "output"}
        )


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    good = isinstance(messages, list | tuple) and messages
    if not good or not all(isinstance(message, Mapping) for message in messages or ()):
        raise InvalidRequest(
            "The request has no list of messages, each a dict with role and content; return a "
            "str, a list of messages, or a full body.",
            {"code": "missing_messages", "param": "messages"},
        )


def _ask_for(output: type[BaseModel], endpoint: str, body: dict[str, Any]) -> None:
    """Puts the schema of `output` into the body, unless the body has a format of its own."""
    if endpoint == CHAT:
        body.setdefault("response_format", schema.response_format(output))
    else:
        text = dict(body.get("text") or {})
        text.setdefault("format", schema.text_format(output))
        body["text"] = text
