"""An app that sends, without a worker; what it subscribes to."""

from __future__ import annotations

from celery import Celery

from lowtide import BatchTask


def shop(url: str) -> Celery:
    """An app with a batch task and a plain one, that nobody works for."""
    app = Celery("shop", broker=url, backend=url, set_as_current=False)

    @app.task(name="shop.plain", shared=False)
    def plain(text: str) -> str:
        return text

    @app.task(name="shop.ask", shared=False, base=BatchTask, model="gpt-5-mini")
    def ask(text: str) -> str:
        return text

    return app


def subscriptions(redis) -> int:
    """How often the server was asked to subscribe somebody."""
    return calls(redis, "subscribe")


def calls(redis, command: str) -> int:
    """How often the server was asked for `command`."""
    found: int = redis.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)
    return found
