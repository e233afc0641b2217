"""Login, logout, and what keeps other pages from acting through a browser."""

from __future__ import annotations

import logging

import pytest

from ostler import Peer
from ostler_http.ui.security import FormTokens, is_same_origin


def test_a_page_sends_who_has_not_logged_in_to_the_form_and_back(site):
    sent = site.get("/services?x=1")
    assert sent.status_code == 303
    assert sent.headers["location"] == "/login?next=/services%3Fx%3D1"
    assert site.log_in(target="/services?x=1").headers["location"] == "/services?x=1"
    assert site.get("/services?x=1").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site):
    cookies = site.log_in().headers.get_list("set-cookie")
    (session,) = [cookie for cookie in cookies if not cookie.startswith("ostler-session-8080-login")]
    words = {word.strip().lower() for word in session.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= words
    assert "secure" not in words


def test_the_cookie_is_for_tls_only_when_the_page_is(site):
    site.browser.base_url = "https://node1:8080"
    cookies = site.log_in(origin="https://node1:8080").headers.get_list("set-cookie")
    assert all("; secure" in cookie.lower() for cookie in cookies if "max-age=0" not in cookie.lower())


@pytest.mark.parametrize("secret", ["", "wrong", "admin-secret2", "ä€", "x" * 5000])
def test_a_wrong_token_is_refused_and_not_logged(site, caplog, secret):
    caplog.set_level(logging.DEBUG)
    answer = site.log_in(secret)
    assert answer.status_code == 403
    assert "not known, has expired or was revoked" in answer.text
    if secret:
        assert secret not in caplog.text
        assert secret not in answer.text
    assert site.get("/").status_code == 303


def test_an_address_that_fails_often_waits_even_with_the_right_token(make_site, clock):
    site = make_site(login_failures=3)
    assert [site.log_in("wrong").status_code for _ in range(4)] == [403, 403, 403, 429]
    answer = site.log_in()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    clock.advance(60)
    assert site.log_in().status_code == 303


def test_nobody_who_shares_the_address_locks_out_who_has_a_login_link(make_site):
    site = make_site(login_failures=2)
    assert [site.log_in("wrong").status_code for _ in range(3)] == [403, 403, 429]
    assert "<code>ostler http login-link</code>" in site.log_in("wrong").text
    code = site.application.login_link(Peer(0, 0, 42, "uid 0")).partition("#once=")[2]
    assert site.log_in(code).status_code == 303
    assert site.log_in(code).status_code == 429, "a code that was used is a failed login like others"


def test_forms_of_two_tabs_are_both_valid(site, field):
    first, second = (field(site.get("/login").text, "csrf") for _ in range(2))
    assert site.post("/login", csrf=second, secret="wrong").status_code == 403
    assert site.post("/login", csrf=first, secret="admin-secret").status_code == 303


def test_a_login_form_counts_only_in_the_browser_that_got_it(site, field):
    csrf = field(site.get("/login").text, "csrf")
    site.browser.cookies.clear()
    assert site.post("/login", csrf=csrf, secret="admin-secret").status_code == 403
    assert site.get("/").status_code == 303


def test_a_login_from_another_site_is_refused(site):
    assert site.log_in(origin="https://evil.example").status_code == 403


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nx: y",
        "",
        "evil",
        "/ä",
    ],
)
def test_a_login_goes_on_to_no_other_host(site, target):
    assert site.log_in(target=target).headers["location"] == "/"


def test_a_login_code_lets_in_once_as_the_local_user(site):
    link = site.application.login_link(Peer(0, 0, 42, "uid 0"))
    path, _, code = link.partition("#once=")
    assert path == "/login"
    assert site.log_in(code).status_code == 303
    assert "uid 0" in site.get("/plugins").text
    site.browser.cookies.clear()
    assert site.log_in(code).status_code == 403


def test_a_session_ends_in_the_moment_its_token_is_revoked(admin, gateway):
    del gateway.tokens["admin-secret"]
    assert admin.get("/").headers["location"].startswith("/login")


def test_a_logout_ends_the_session_for_whoever_has_the_cookie(admin):
    cookies = dict(admin.browser.cookies)
    answer = admin.post("/logout", csrf=admin.csrf())
    assert answer.headers["location"] == "/login"
    admin.browser.cookies.update(cookies)
    assert admin.get("/").status_code == 303
    assert admin.get("/").headers["location"].startswith("/login")


def test_a_logout_from_another_site_does_nothing(admin):
    admin.post("/logout", "https://evil.example", csrf=admin.csrf())
    admin.post("/logout", csrf="wrong")
    assert admin.get("/").status_code == 200


def test_who_has_logged_in_need_not_do_it_again(admin):
    assert admin.get("/login?next=/hosts").headers["location"] == "/hosts"


def test_a_login_link_takes_the_place_of_the_session_before(site):
    site.log_in("viewer-secret")
    before = dict(site.browser.cookies)
    form = site.get("/login")
    assert form.status_code == 200, "the script that reads the code of the link would not be loaded"
    assert "You are logged in as token:viewer, viewer." in form.text
    assert site.log_in(site.application.login_link(Peer(0, 0, 42, "uid 0")).partition("#once=")[2]).status_code == 303
    assert "uid 0" in site.get("/plugins").text
    site.browser.cookies.clear()
    site.browser.cookies.update(before)
    assert site.get("/plugins").status_code == 303


FOLLOWED = {"sec-fetch-site": "cross-site", "sec-fetch-user": "?1", "sec-fetch-mode": "navigate"}


def test_a_link_of_another_site_is_asked_for_again_with_the_cookie(site):
    answer = site.get("/services/a?host=b&c=%22", headers=FOLLOWED)
    assert answer.status_code == 200
    assert 'content="0; url=/services/a?host=b&amp;c=%22"' in answer.text
    again = site.get("/services/a", headers={"sec-fetch-site": "same-origin"})
    assert again.status_code == 303, "a page that asks for itself again and again"


@pytest.mark.parametrize("without", ["sec-fetch-site", "sec-fetch-user"])
def test_only_what_a_person_has_followed_is_asked_for_again(site, without):
    assert site.get("/services", headers={**FOLLOWED, without: "none"}).status_code == 303


@pytest.mark.parametrize("path", ["/", "/login", "/nowhere", "/static/ui.js", "/static/nothing", "/do", "/services"])
def test_every_response_has_the_headers_that_protect_it(site, path):
    headers = site.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "a:1", "origin": "http://a:1"}, True),
        ({"host": "A:1", "origin": "https://a:1"}, True),
        ({"host": "a:1", "origin": "http://a:1", "sec-fetch-site": "same-origin"}, True),
        ({"host": "a:1", "sec-fetch-site": "same-origin"}, True),
        ({"host": "a:1", "origin": "http://a:1", "sec-fetch-site": "same-site"}, False),
        ({"host": "a:1", "origin": "http://a:1", "sec-fetch-site": "cross-site"}, False),
        ({"host": "a:1", "origin": "http://a:2"}, False),
        ({"host": "a:1", "origin": "http://a:1.evil.example"}, False),
        ({"host": "a:1", "origin": "null"}, False),
        ({"host": "a:1", "origin": ""}, False),
        ({"host": "a:1", "origin": "http://["}, False),
        ({"host": "", "origin": ""}, False),
        ({"host": "", "origin": "http://"}, False),
        ({"host": "a:1"}, False),
        ({}, False),
    ],
)
def test_a_form_counts_only_from_a_page_of_the_same_host(headers, expected):
    assert is_same_origin(headers) is expected


def test_the_token_of_a_form_is_of_its_owner_and_process():
    tokens = FormTokens()
    token = tokens.token("alice")
    assert tokens.matches("alice", token)
    assert not tokens.matches("bob", token)
    assert not tokens.matches("alice", "ä\udce4")
    assert not FormTokens().matches("alice", token)


def test_a_caller_with_a_certificate_needs_no_login_but_the_token_of_forms(site, gateway):
    app = site.browser.app

    async def with_certificate(scope, receive, send):
        await app({**scope, "ostler.caller": gateway.caller_of_token("operator-secret")}, receive, send)

    site.browser = type(site.browser)(with_certificate, base_url="http://node1:8080", follow_redirects=False)
    assert "token:operator" in site.get("/plugins").text
    assert "Log out" not in site.get("/plugins").text
    assert site.do("periodic.run", csrf="", arg_service="a", arg_task="b").status_code == 403
    assert site.do("periodic.run", arg_service="a", arg_task="b").status_code == 303
    assert gateway.changes() == [("token:operator", "ostler", "periodic_run", {"service": "a", "task": "b"})]


@pytest.mark.parametrize(
    "host", ["", "x:abc", "[::1", "a:b:c", "node1:99999999", "evil.example/path?x", "\xff\xfe", "node1:", " "]
)
def test_a_host_header_that_is_none_breaks_nothing(site, host):
    site.log_in()
    headers = {"host": host.encode("latin-1")}
    assert site.get("/services", headers=headers).headers["location"] == "/login?next=/services"
    assert site.get("/login", headers=headers).status_code == 200


def test_the_audit_log_hears_where_a_refused_login_came_from(site, gateway):
    site.log_in("wrong")
    assert gateway.origins == ["192.0.2.7"]
