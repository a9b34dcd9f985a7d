"""Each peer's way to ask many things in a batch; run by the peer's own interpreter.

`python peer_clients.py PEER FILE`: asks each line of FILE, prints how many answers came and the
seconds that it took. All get the same knobs: one batch of all calls, a look at it every 0.2 s.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

MODEL = "gpt-5-mini"
LOOK = 0.2
WAIT = 0.5


async def autobatcher(prompts: list[str]) -> int:
    from autobatcher import BatchOpenAI

    client = BatchOpenAI(
        api_key=os.environ["OPENAI_API_KEY"],
        base_url=os.environ["OPENAI_BASE_URL"],
        batch_size=len(prompts),
        batch_window_seconds=WAIT,
        poll_interval_seconds=LOOK,
        completion_window="24h",
    )

    async def ask(prompt: str) -> str | None:
        messages = [{"role": "user", "content": prompt}]
        answer = await client.chat.completions.create(model=MODEL, messages=messages)
        return answer.choices[0].message.content

    return _good(await asyncio.gather(*map(ask, prompts)))


async def inspect_ai(prompts: list[str]) -> int:
    from inspect_ai.model import BatchConfig, GenerateConfig, get_model

    batch = BatchConfig(size=len(prompts), send_delay=WAIT, tick=LOOK)
    config = GenerateConfig(batch=batch, max_connections=len(prompts))
    model = get_model(f"openai/{MODEL}", config=config, responses_api=False)
    answers = await asyncio.gather(*(model.generate(prompt) for prompt in prompts))
    return _good([answer.completion for answer in answers])


async def pydantic_ai(prompts: list[str]) -> int:
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import BatchModelRequests

    batching = BatchModelRequests(
        max_requests=len(prompts),
        max_wait=timedelta(seconds=WAIT),
        poll_interval=timedelta(seconds=LOOK),
        max_poll_interval=timedelta(seconds=LOOK),
    )
    agent = Agent(f"openai:{MODEL}", capabilities=[batching])
    answers = await asyncio.gather(*(agent.run(prompt) for prompt in prompts))
    return _good([answer.output for answer in answers])


def _good(answers: list[str | None]) -> int:
    return sum(1 for answer in answers if answer)


if __name__ == "__main__":
    peer = {"autobatcher": autobatcher, "inspect_ai": inspect_ai, "pydantic_ai": pydantic_ai}
    lines = Path(sys.argv[2]).read_text().splitlines()
    start = time.monotonic()
    found = asyncio.run(peer[sys.argv[1]](lines))
    print(found, time.monotonic() - start)
