"""Pages that plugins bring: laid out here, escaped here, and with buttons only for who may."""

from __future__ import annotations

import pytest

from ostler import NotFound


class LampPage:
    """What a plugin would bring; it imports nothing of this package."""

    title = "Lamps"
    manager = "lamp"
    actions = {
        "switch": {
            "label": "Switch…", "method": "switch", "submit": True, "question": "Switch {lamp}?",
            "fields": {"level": {"label": "Level", "kind": "number", "required": True}},
        },
        "reset": {"label": "Reset", "method": "reset", "done": "reset {lamp}"},
    }  # fmt: skip

    def __init__(self):
        self.error = None
        self.rows = 1

    async def render(self, request, client):
        if self.error is not None:
            raise self.error
        name = (await client.call(request["topic"], "list_lamps"))[0]
        row = {"cells": [name, {"kind": "size", "value": 1024}, {"kind": "state", "value": name, "why": name}],
               "actions": [["switch", {"lamp": name}], ["reset", {"lamp": name}]]}  # fmt: skip
        return {
            "actions": ["reset"],
            "sections": [
                {"title": name, "text": name, "facts": [[name, name]]},
                {"table": {"columns": [name, "Size", "State"], "rows": [row] * self.rows}},
                {"title": "Empty", "table": {"columns": ["x"], "rows": [], "empty": name}},
            ],
        }


@pytest.fixture
def page():
    return LampPage()


@pytest.fixture
def lamps(make_site, gateway, page, hostile):
    site = make_site(pages={"lamps": page})
    service = {**gateway.answers["status"]["services"][0], "topic": "hall", "manager": "lamp"}
    gateway.answers["status"]["services"].append(service)
    gateway.answers["list_lamps"] = [hostile]
    gateway.described["hall"] = [
        {"method": "switch", "role": "operator", "doc": ""}, {"method": "reset", "role": "admin", "doc": ""},
    ]  # fmt: skip
    site.log_in("operator-secret")
    return site


def test_a_page_is_in_the_menu_while_there_is_a_service_of_its_manager(lamps, gateway, clock):
    assert "/pages/lamps" in lamps.get("/services").text
    gateway.answers["status"]["services"].pop()
    clock.advance(5)
    assert "/pages/lamps" not in lamps.get("/services").text
    assert lamps.get("/pages/lamps").status_code == 404


def test_what_a_page_says_is_escaped_and_laid_out(lamps):
    page = lamps.get("/pages/lamps").text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "1KiB" in page


def test_a_table_of_thousands_of_rows_is_cut_and_says_so(lamps, gateway, page):
    page.rows = 3000
    text = lamps.get("/pages/lamps").text
    assert text.count("lamps/hall/switch") == 200
    assert "The first 200 of 3,000." in text
    assert 'name="q"' in text


@pytest.mark.parametrize(("wanted", "expected"), [("ONE", 1), ("1024", 1), ("two", 0), ("<b>", 0), ("", 1)])
def test_rows_are_found_by_what_their_cells_say(lamps, gateway, wanted, expected):
    gateway.answers["list_lamps"] = ["one"]
    text = lamps.get("/pages/lamps", params={"q": wanted}).text
    assert text.count("lamps/hall/switch") == expected
    assert text.count("No row has ") == (2 - expected if wanted else 0)
    assert "<b>" not in text
    assert ('name="q"' in text) is bool(wanted), "a filter for a few rows"


def test_only_what_the_visitor_may_do_is_offered(lamps):
    page = lamps.get("/pages/lamps").text
    assert "lamps/hall/switch" in page
    assert "lamps/hall/reset" not in page


def test_an_action_of_a_page_asks_and_submits_an_operation(lamps, gateway):
    question = lamps.do("lamps/hall/switch", csrf=lamps.csrf(), arg_lamp="one")
    assert "Switch one?" in question.text
    done = lamps.do("lamps/hall/switch", confirmed="yes", arg_lamp="one", arg_level="3")
    assert done.headers["location"] == "/operations/op-1?back=/services"
    assert 'href="/services">Back</a>' in lamps.get(done.headers["location"]).text
    assert 'href="/">Back</a>' in lamps.get("/operations/op-1?back=//evil.example/").text
    assert ("token:operator", "hall", "switch", {"lamp": "one", "level": "3"}) in gateway.calls


def test_an_action_that_the_role_does_not_allow_is_refused(lamps, gateway):
    assert lamps.do("lamps/hall/reset", arg_lamp="one").status_code == 403
    assert not [call for call in gateway.calls if call[2] == "reset"]


@pytest.mark.parametrize("name", ["lamps/ostler/switch", "lamps/volume/switch", "lamps//switch", "other/hall/switch"])
def test_an_action_is_only_for_the_services_of_its_page(lamps, gateway, name):
    assert lamps.do(name, confirmed="yes", arg_level="1").status_code == 404
    assert not [call for call in gateway.calls if call[2] == "switch"]


def test_a_page_that_fails_says_so_and_takes_nothing_with_it(lamps, page, caplog):
    page.error = ZeroDivisionError("secret detail")
    answer = lamps.get("/pages/lamps")
    assert answer.status_code == 500
    assert "the page lamps has failed: ZeroDivisionError" in answer.text
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert lamps.get("/services").status_code == 200


def test_an_error_that_a_page_raises_is_shown(lamps, page):
    page.error = NotFound("no lamps here", hint="buy some")
    answer = lamps.get("/pages/lamps")
    assert (answer.status_code, "no lamps here" in answer.text, "buy some" in answer.text) == (404, True, True)


class _Untitled:
    async def render(self, request, client):
        return {}


class _Blocking:
    title = "x"

    def render(self, request, client):
        return {}


class _Misspelt(LampPage):
    actions = {"a": {"label": "x", "method": "y", "feilds": {}}}


class _Explosive(LampPage):
    def __init__(self):
        raise RuntimeError("boom")


@pytest.mark.parametrize("broken", [_Untitled, _Blocking, _Misspelt, _Explosive, 7])
def test_a_page_that_is_not_as_it_has_to_be_is_left_out_and_named(make_site, caplog, broken):
    site = make_site(pages={"broken": broken, "lamps": LampPage})
    assert "the page broken cannot be used" in caplog.text
    site.log_in()
    assert site.get("/pages/broken").status_code == 404
    assert site.get("/services").status_code == 200
