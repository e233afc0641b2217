from __future__ import annotations


def test_the_index_leads_to_what_there_is(api):
    found = api.get("/").json()
    assert found["host"] == "testhost"
    assert found["paths"]["events"] == "/v1/events"


def test_every_path_of_the_index_is_there(api):
    for path in api.get("/").json()["paths"].values():
        method = api.application.routes.find("GET", path.removeprefix("/v1/").split("/"))
        assert method is not None


def test_topics_are_listed_with_their_hosts_and_methods(api):
    assert api.get("/topics").json() == [
        {"topic": "lamp", "hosts": ["testhost"]},
        {"topic": "ostler", "hosts": ["testhost"]},
    ]
    methods = {each["method"]: each for each in api.get("/topics/lamp").json()}
    assert methods["switch"]["role"] == "operator"
    assert methods["show"]["arguments_schema"]["$defs"]["Arguments"]["required"] == ["name"]
    assert api.get("/topics/lamps").json()["hint"].startswith("did you mean")


def test_services_are_shown_as_the_command_shows_them(api):
    found = api.get("/services").json()
    assert [each["topic"] for each in found] == ["lamp"]
    assert found[0]["last_report"] is None or found[0]["last_report"].endswith("Z")
    assert found[0]["since"].endswith("Z")
    assert api.get("/services/lamp").json()["state"] == "up"
    assert api.get("/services/nosuch").status == 404


def test_lists_are_chosen_by_fields(api):
    assert api.get("/services?state=up&topic=lamp").json() != []
    assert api.get("/services?state=failed").json() == []
    assert api.get("/drivers?service=lamp").json() == []
