"""Names of destinations and result backends: what a call may say, and what errors say of them."""

from __future__ import annotations

import gc
import json
import pickle
import time
from typing import Any

import openai
import pytest
from celery import Celery

from lowtide import BatchTask, SettingsError, carried, named, named_backend, runtime, settings
from lowtide.destinations import key
from lowtide.endings import Ending, failed
from lowtide.messages import Told, pack, unpack
from lowtide.result import BatchResult
from lowtide.senders import sign
from tests.outbox.conftest import SECRET


@pytest.fixture
def app(tmp_path) -> Celery:
    app = Celery("names", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.lowtide = {
        "home": tmp_path,
        "destinations": {"crm": {"webhook": "https://crm.example/", "secret": SECRET}},
        "results": {
            "archive": f"db+sqlite:///{tmp_path}/archive.db",
            "rpc": "rpc://",
            "odd": "nosuch://user:hidden@host",
        },
    }

    @app.task(base=BatchTask, model="m", name="names.plain", shared=False)
    def plain(text: str) -> str:
        return text

    @app.task(
        base=BatchTask,
        model="m",
        name="names.told",
        shared=False,
        deliver_to=["crm", "feed"],
        result_backend="archive",
        ignore_result=True,
    )
    def told(text: str) -> str:
        return text

    app.finalize()
    return app


@pytest.mark.parametrize(
    ("task", "options", "wanted"),
    [
        ("plain", {}, ()),
        ("plain", {"deliver_to": "crm"}, ("crm",)),
        ("plain", {"deliver_to": ("crm", "feed", "crm")}, ("crm", "feed")),
        ("plain", {"result_backend": "eu"}, ("results:eu",)),
        ("told", {}, ("crm", "feed", "results:archive")),
        ("told", {"deliver_to": "other", "result_backend": "eu"}, ("other", "results:eu")),
        ("told", {"deliver_to": []}, ("results:archive",)),
    ],
)
def test_a_call_names_who_is_told_or_else_its_task(
    app: Celery, task: str, options: dict[str, Any], wanted: tuple[str, ...]
) -> None:
    headers = json.loads(json.dumps(carried.take(options)))

    assert carried.recipients(app.tasks[f"names.{task}"], headers) == wanted
    assert options == {}


@pytest.mark.parametrize("options", [{"deliver_to": [1]}, {"result_backend": 7}])
def test_what_is_no_name_is_refused_where_it_is_said(app: Celery, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        app.tasks["names.plain"].apply_async(("a",), **options)


def test_a_misspelt_option_is_refused() -> None:
    from lowtide import batch_task

    with pytest.raises(TypeError, match="did you mean 'deliver_to'"):
        batch_task(model="m", delivr_to="crm")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"crm": {}}, "name either a webhook or a stream"),
        ({"crm": {"webhook": "https://a.example/", "stream": "s"}}, "name either a webhook"),
        ({"crm": {"webhook": "file:///etc/passwd", "secret": "s"}}, "webhook is not a URL"),
        ({"crm": {"webhook": "https://a.example/"}}, "needs a secret or a secret_env"),
        ({"crm": {"webhok": "https://a.example/"}}, "Extra inputs are not permitted"),
        ({"a:b": {"stream": "s"}}, "should match pattern"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(value: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load({"destinations": value})

    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_errors_of_settings_repeat_no_secret() -> None:
    given = {"webhook": "ftp://user:hunter2@a.example/", "secret": "whsec_hunter2"}

    with pytest.raises(SettingsError) as caught:
        settings.load({"destinations": {"crm": given}})

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(settings.load({"results": {"a": "redis://:hunter2@h"}}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "No result backend is named 'nobody' in LOWTIDE_RESULTS; it has archive, odd"),
        ("rpc", "The result backend 'rpc' of LOWTIDE_RESULTS cannot be used"),
        ("odd", "The result backend 'odd' of LOWTIDE_RESULTS cannot be used"),
    ],
)
def test_a_backend_that_cannot_be_used_is_said_without_its_url(
    app: Celery, name: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        named_backend(name, app)

    assert said in caught.value.message
    assert "hidden" not in caught.value.message


def test_a_named_backend_is_made_once_for_a_thread(app: Celery) -> None:
    assert named_backend("archive", app) is named_backend("archive", app)


def test_results_read_from_the_backend_that_is_named(app: Celery) -> None:
    task = app.tasks["names.told"]
    archive = named_backend("archive", app)
    archive.store_result("t1", "kept", "SUCCESS")

    result = task.AsyncResult("t1")
    called = task.apply_async(("a",))
    plain = app.tasks["names.plain"].AsyncResult("t1", result_backend="archive")

    assert result.get(timeout=5) == "kept"
    assert plain.get(timeout=5) == "kept"
    assert isinstance(called, BatchResult)
    assert (called.backend, called.ignored) == (archive, False)
    assert app.tasks["names.plain"].AsyncResult("t1").backend is app.backend
    again = pickle.loads(pickle.dumps(result))
    assert (again.id, again._name) == ("t1", "archive")


def test_a_result_that_is_never_read_makes_no_backend(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(named, "named_backend", lambda name, _app: made.append(name))

    result = app.tasks["names.told"].AsyncResult("t1")
    del result
    gc.collect()

    assert made == []


def test_the_signature_is_that_of_standard_webhooks() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    made = sign(key(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_error_is_told_with_its_class_its_words_and_its_details(app: Celery) -> None:
    from lowtide import RequestRejected

    error = RequestRejected("The prompt is refused.", {"code": "bad", "status": 400})
    told = Told("t1.0.0", "names.plain", "t1", failed(app, error), ended_at=0.5)

    body = json.loads(told.body())

    assert body["type"] == "task.failed"
    assert body["timestamp"] == "1970-01-01T00:00:00.500Z"
    assert body["data"]["error"] == {
        "type": "RequestRejected",
        "message": "The prompt is refused.",
        "details": {"code": "bad", "status": 400},
    }
    assert body["data"]["result"] is None


def test_answers_that_no_json_can_hold_are_told_all_the_same(app: Celery) -> None:
    told = Told("t1.0.0", "names.plain", "t1", Ending("SUCCESS", ["\ud83d", 2**80, {1: b"x"}]))

    assert json.loads(told.body())["data"]["result"][1] == 2**80


def test_a_result_that_nothing_can_serialize_is_told_as_text(app: Celery) -> None:
    circle: list[Any] = [{1, 2}]
    circle.append(circle)
    values = {"a set": {"of": {1}}, "a circle": circle, "an object": object}

    for name, value in values.items():
        blob = pack(app, Told("t1.0.0", "names.plain", name, Ending("SUCCESS", value)))
        told = unpack(app, blob)
        assert (told.task_id, told.custom_id) == (name, "t1.0.0")
        assert json.loads(told.body())["data"]["result"]
    assert unpack(app, blob).ending.value == str(object)


def test_the_sdk_takes_the_signature() -> None:
    body, at = b"{}", int(time.time())
    headers = {
        "webhook-id": "t1.0.0",
        "webhook-timestamp": str(at),
        "webhook-signature": sign(key(SECRET), "t1.0.0", at, body),
    }

    client = openai.OpenAI(api_key="unused", base_url="http://127.0.0.1:9")
    client.webhooks.verify_signature(body, headers, secret=SECRET)


def test_the_runtime_of_another_app_has_backends_of_its_own(app: Celery, tmp_path) -> None:
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)
    other.conf.lowtide = {"results": {"archive": f"db+sqlite:///{tmp_path}/other.db"}}
    runtime.install(other)

    assert named_backend("archive", other) is not named_backend("archive", app)
