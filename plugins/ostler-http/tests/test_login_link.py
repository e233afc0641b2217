"""Links that log a browser in: for whom they are made, and where they lead."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ostler import NotFound, NotPermitted, Peer
from ostler_http.login_link import make_login_link

USER = Peer(0, 0, 42, "uid 0")


def mount(root_path="/ui", *, has_page=True):
    app = SimpleNamespace(login_link=lambda peer: f"/login#once={peer.uid}") if has_page else SimpleNamespace()
    return SimpleNamespace(root_path=root_path, app=app)


@pytest.mark.parametrize(
    ("address", "root_path", "expected"),
    [
        ("http://127.0.0.1:8080", "/ui", "http://127.0.0.1:8080/ui/login#once=0"),
        ("https://[::1]:8443", "", "https://[::1]:8443/login#once=0"),
        ("http://0.0.0.0:8080", "/ui", "http://127.0.0.1:8080/ui/login#once=0"),
        ("http://[::]:8080", "/ui", "http://[::1]:8080/ui/login#once=0"),
    ],
)
def test_a_link_leads_to_an_address_that_a_browser_can_open(address, root_path, expected):
    mounts = [mount("/v1", has_page=False), mount(root_path)]
    assert make_login_link(mounts, ["unix:/run/web.sock", address], USER) == expected


def test_a_link_is_for_users_of_this_host_alone():
    with pytest.raises(NotPermitted, match="key:laptop is none"):
        make_login_link([mount()], ["http://127.0.0.1:1"], Peer(name="key:laptop", key="x" * 40))


@pytest.mark.parametrize(
    ("mounts", "addresses", "what"),
    [
        ([mount(has_page=False)], ["http://127.0.0.1:1"], "no web page"),
        ([], ["http://127.0.0.1:1"], "no web page"),
        ([mount()], ["unix:/run/web.sock"], "no address for a browser"),
        ([mount()], [], "no address for a browser"),
    ],
)
def test_a_service_without_a_page_or_address_says_what_to_add(mounts, addresses, what):
    with pytest.raises(NotFound, match=what) as refused:
        make_login_link(mounts, addresses, USER)
    assert refused.value.hint
