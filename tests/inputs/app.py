"""Batch tasks with every kind of input and endpoint."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from lowtide import Answer, batch_task, chat, checked, complete, image, moderate, respond

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("inputs", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True

MODEL = "gpt-5-mini"
TEXT = "The blue ferry leaves at nine."
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def parts(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": TEXT}, *more]}]


@batch_task(name="inputs.picture", model=MODEL)
def picture(url: str) -> list[dict[str, Any]]:
    return parts({"type": "image_url", "image_url": {"url": url}})


@batch_task(name="inputs.file", model=MODEL)
def file(data: str) -> list[dict[str, Any]]:
    return parts({"type": "file", "file": {"filename": "a.pdf", "file_data": data}})


@batch_task(name="inputs.response_parts", model=MODEL, endpoint="/v1/responses")
def response_parts(url: str, data: str) -> Any:
    content = [
        {"type": "input_text", "text": TEXT},
        {"type": "input_image", "image_url": url},
        {"type": "input_file", "filename": "a.pdf", "file_data": data},
        {"type": "input_file", "file_id": "file-known"},
    ]
    return respond([{"role": "user", "content": content}])


@batch_task(name="inputs.vector", model="text-embedding-3-small", endpoint="/v1/embeddings")
def vector(text: str) -> str:
    return text


@batch_task(name="inputs.hurried", model="gpt-5-nano", deadline="8s")
def hurried(text: str) -> str:
    return text


@batch_task(name="inputs.chat_tool", model=MODEL)
def chat_tool(text: str) -> Any:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    return chat(text, tools=[tool], tool_choice="required")


@batch_task(name="inputs.response_tool", model=MODEL, endpoint="/v1/responses")
def response_tool(text: str) -> Any:
    tool = {"type": "function", "name": "weather", "parameters": WEATHER}
    return respond(text, tools=[tool], tool_choice="required")


@batch_task(name="inputs.tool_loop", model=MODEL)
def tool_loop(text: str) -> Any:
    """Makes the call that the model asks for, and asks again."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    asked: Answer = yield chat(text, tools=[tool], tool_choice="required")
    [call] = asked.tool_calls
    history = [
        {"role": "user", "content": text},
        asked.value(),
        {"role": "tool", "tool_call_id": call["id"], "content": "It rains in Utrecht."},
    ]
    answer: Answer = yield chat(history)
    return [call["function"]["name"], answer.text]


@batch_task(name="inputs.reasoning", model="o4-mini", params={"reasoning_effort": "low"})
def reasoning(text: str) -> str:
    return text


@batch_task(name="inputs.completion", model="davinci-002", endpoint="/v1/completions")
def completion(prompt: Any) -> Any:
    return complete(prompt)


@batch_task(name="inputs.painting", model="dall-e-3", endpoint="/v1/images/generations")
def painting(prompt: str, n: int = 1) -> Any:
    return image(prompt, n=n)


@batch_task(name="inputs.judgement", model="omni-moderation-latest", endpoint="/v1/moderations")
def judgement(texts: Any) -> Any:
    return moderate(texts)


@batch_task(name="inputs.careful", model=MODEL)
def careful(text: str) -> Any:
    answer = yield from checked(chat(text))
    return answer.text
