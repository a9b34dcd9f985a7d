"""Who gets in, what an action needs, and what every answer carries."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.web.conftest import proof
from worker.web import guard
from worker.web.app import make_app

TOKEN = "correct horse battery staple"
HTML = {"accept": "text/html"}


@pytest.fixture
def guarded(settings, rt, browser_like):
    settings["web_token"] = TOKEN
    guard._failures.clear()
    with browser_like(rt) as client:
        yield client


def test_without_a_token_this_machine_gets_in(page) -> None:
    assert page.get("/").status_code == 200


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("10.0.0.7", {}),
        ("127.0.0.1", {"host": "evil.example"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}),
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.7"}),
    ],
)
def test_without_a_token_nobody_else_does(rt, client, headers) -> None:
    outside = TestClient(make_app(rt), base_url="http://127.0.0.1:8080", client=(client, 1))

    answer = outside.get("/", headers=headers)

    assert answer.status_code == 403
    assert "LOWTIDE_WEB_TOKEN" in answer.text


@pytest.mark.parametrize("path", ["/", "/lanes", "/batches/b1", "/metrics", "/live", "/settings"])
def test_with_a_token_everything_asks_for_it(guarded, path) -> None:
    program = guarded.get(path, follow_redirects=False)
    browser = guarded.get(path, headers=HTML, follow_redirects=False)

    assert program.status_code == 401
    assert browser.status_code == 303
    assert browser.headers["location"].startswith("/login?next=%2F")


@pytest.mark.parametrize("path", ["/health", "/ready", "/static/app.css"])
def test_what_is_open_with_a_token(guarded, path) -> None:
    assert guarded.get(path).status_code == 200


def test_logging_in_leads_to_where_one_wanted(guarded) -> None:
    answer = guarded.post("/login?next=/costs%3Fby%3Dlane", data={"token": TOKEN})

    assert str(answer.url).endswith("/costs?by=lane")
    assert guarded.get("/").status_code == 200
    guarded.post("/logout", data={"proof": proof(guarded, "/")})
    assert guarded.get("/").status_code == 401


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_logging_in_never_leads_elsewhere(guarded, target) -> None:
    answer = guarded.post(
        "/login", params={"next": target}, data={"token": TOKEN}, follow_redirects=False
    )

    assert answer.headers["location"] == "/"


def test_wrong_tokens_are_refused_and_slowed_down(guarded) -> None:
    answers = [guarded.post("/login", data={"token": f"guess {n}"}) for n in range(11)]

    assert [answer.status_code for answer in answers] == [403] * 10 + [429]
    assert guarded.get("/").status_code == 401


def test_a_changed_cookie_is_worth_nothing(guarded) -> None:
    guarded.post("/login", data={"token": TOKEN})
    value = guarded.cookies["lowtide"]
    guarded.cookies.clear()
    guarded.cookies.set("lowtide", value[:-1] + ("0" if value[-1] != "0" else "1"))

    assert guarded.get("/").status_code == 401


def test_programs_bring_the_token_along(guarded) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}

    assert guarded.get("/metrics", headers=bearer).status_code == 200
    assert guarded.get("/metrics", headers={"authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize(
    ("proof_field", "headers"),
    [(None, {}), ("0" * 64, {}), ("right", {"origin": "http://evil.example"})],
)
def test_actions_of_other_sites_do_nothing(page, rt, proof_field, headers) -> None:
    page.get("/")
    data = {"subject": "default"}
    if proof_field is not None:
        data["proof"] = proof(page, "/tables") if proof_field == "right" else proof_field

    answer = page.post("/lanes/pause", data=data, headers=headers)

    assert answer.status_code == 403


def test_the_cookie_is_out_of_reach(page) -> None:
    cookie = page.get("/").headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize("path", ["/", "/nowhere", "/static/app.js", "/health"])
def test_headers_that_keep_the_page_to_itself(page, path) -> None:
    headers = page.get(path).headers

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)],
)
def test_what_is_this_machine(host, expected) -> None:
    assert guard.is_loopback(host) is expected
