"""One replica's runtime in this process, with a destination of each kind; on both databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from lowtide import runtime
from tests.outbox.receiver import Receiver

SECRET = "whsec_bG93dGlkZS10ZXN0cy1vdXRib3g="


@pytest.fixture
def crm() -> Iterator[Receiver]:
    receiver = Receiver(SECRET)
    yield receiver
    receiver.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def rt(tmp_path: Path, redis_url: str, database_url: str, crm: Receiver) -> runtime.Runtime:
    name = f"app-{uuid.uuid4().hex}"
    app = Celery(name, broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.lowtide = {
        "redis_url": redis_url,
        "database_url": database_url,
        "home": tmp_path,
        "retry_delay": 10,
        "destinations": {
            "crm": {"webhook": crm.url, "secret": SECRET},
            "feed": {"stream": "feed", "maxlen": 100},
        },
        "results": {"archive": f"db+sqlite:///{tmp_path}/archive.db"},
    }
    return runtime.of(app)
