"""Addresses, names of applications and options of one table, without a service."""

from __future__ import annotations

import pytest

from ostler.testing import host
from ostler_http import Application, AppOptions, Filter
from ostler_http.addresses import ListenAddress, parse_address
from ostler_http.options import mounted_apps, options_for
from ostler_http.references import ReferenceFault, resolve_app, resolve_filter


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ListenAddress("tcp", "127.0.0.1", 80)),
        ("localhost:0", ListenAddress("tcp", "127.0.0.1", 0)),
        ("[::1]:443", ListenAddress("tcp", "::1", 443)),
        ("[0:0::1]:443", ListenAddress("tcp", "::1", 443)),
        ("unix:/run/x", ListenAddress("unix", "/run/x")),
        ("systemd:web", ListenAddress("systemd", "web")),
    ],
)
def test_addresses_are_parsed(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":80", "80", "127.0.0.1", "::1:80", "example.org:80", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x",
     "127.0.0.1:\u0661", "*:80", "unix:", "unix:relative", "unix:/" + "x" * 100, "unix:/a\0b", "systemd:"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_is(text):
    with pytest.raises(ValueError, match=r"write|must|missing"):
        parse_address(text)


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("[::]:80", "[::1]:80", True),
        ("0.0.0.0:80", "[::]:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("systemd:a", "systemd:a", True),
    ],
)
def test_addresses_that_exclude_each_other_are_known(one, other, overlaps):
    assert parse_address(one).overlaps(parse_address(other)) is overlaps
    assert parse_address(other).overlaps(parse_address(one)) is overlaps


class Plain(Application):
    def build(self):
        return asgi


class Abstract(Application):
    pass


class Callable3:
    async def __call__(self, scope, receive, send):
        """Answer nothing."""


async def asgi(scope, receive, send):
    """Answer nothing."""


def wsgi(environ, start_response):
    return []


def factory(environment, options):
    return asgi


def nothing():
    """Take nothing."""


def wrong_options(environment, options):
    return asgi


wrong_options.Options = dict
REGISTERED = {
    "plain": Plain, "asgi": asgi, "wsgi": wsgi, "factory": factory, "object": Callable3(), "abstract": Abstract,
    "nothing": nothing, "number": 3, "wrong": wrong_options, "instance": Plain(None, None), "class": dict,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plain", "class"), ("asgi", "asgi"), ("wsgi", "wsgi"), ("factory", "factory"), ("object", "asgi"),
     ("wsgiref.simple_server:demo_app", "wsgi")],
)  # fmt: skip
def test_what_an_application_is_is_told_by_its_parameters(name, kind):
    assert resolve_app(name, REGISTERED).kind == kind


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("abstract", "lacks build"),
        ("nothing", "is no application"),
        ("number", "is no application"),
        ("class", "is no application"),
        ("instance", "name its class"),
        ("wrong", "do not derive from"),
        ("plian", 'did you mean "plain"'),
        ("no.such:thing", "cannot be imported: ModuleNotFoundError"),
        ("json:nothing", "has no attribute"),
    ],
)
def test_what_is_no_application_is_refused_with_the_reason(name, why):
    with pytest.raises(ReferenceFault, match=why):
        resolve_app(name, REGISTERED)


def test_a_factory_that_returns_something_else_is_refused_when_it_is_called():
    resolved = resolve_app("bad", {"bad": lambda environment, options: 3})
    with pytest.raises(ReferenceFault, match="returned int"):
        resolved.create(None, AppOptions(app="bad"))


def test_a_filter_must_be_a_class_of_its_contract():
    with pytest.raises(ReferenceFault, match="no class that derives from"):
        resolve_filter("bad", {"bad": Filter})


def test_the_model_of_a_table_is_the_same_class_for_the_same_parts():
    table = {"apps": {"/a": {"app": "plain"}}, "filters": {"copy": {"filter": "none"}}}
    made = options_for(table, REGISTERED, {})
    assert options_for(table, REGISTERED, {}) is made
    assert options_for({"apps": {"/b": {"app": "plain"}}}, REGISTERED, {}) is not made
    assert list(mounted_apps(made.model_validate({"manager": "http", **table}))) == ["/a"]


@pytest.mark.parametrize(
    "table",
    [{}, {"apps": 3}, {"apps": {"/a": 3}}, {"apps": {"/a": {"app": 3}}}, {"apps": {"_a": {}}}, {"filters": []},
     {"filters": {"x": {"filter": 3}}}, {"apps": {"": {}}}, {"apps": {"model_fields": {"app": "plain"}}}],
)  # fmt: skip
def test_a_table_of_any_content_has_a_model(table):
    assert options_for(table, REGISTERED, {}).model_fields.keys() >= {"listen", "apps"}


@pytest.mark.parametrize(
    ("config", "where", "what"),
    [
        ('listen = ["x"]', ":3:11: services.web.listen[0]", "is not a valid address"),
        ("listen = []", ":3:10: services.web.listen", "names no address"),
        ('listen = ["0.0.0.0:1"]', ":3:11:", "plain text"),
        ('listen = ["127.0.0.1:1", "0.0.0.0:1"]\nplain_text = true', ":3:26:", "named twice"),
        ('[services.web.apps."a"]\napp = "wsgiref.simple_server:demo_app"', ":3:1:", "is not a valid path"),
        ('[services.web.apps."/a/"]\napp = "wsgiref.simple_server:demo_app"', ":3:1:", "is not a valid path"),
        ('[services.web.apps."/a"]\napp = "json:loads"', ':4:7: services.web.apps."/a".app', "is no application"),
        ('[services.web.apps."/a"]\napp = 3', ":4:7:", "expected text"),
        ('[services.web.apps."/a"]', ":3:1:", 'missing required key "app"'),
        (
            '[services.web.apps."/a"]\napp = "wsgiref.simple_server:demo_app"\nfilters = ["aut"]',
            ":5:12:",
            'did you mean "auth"',
        ),
        ("[services.web.filters.x]\nrate = 3", ":3:1:", "no installed plugin provides the filter"),
        ('[services.web.filters.x]\nfilter = "limit"\nrate = 0', ":5:8:", "a number above 0"),
        ('[services.web.filters.Bad]\nfilter = "limit"', ":3:1:", "is not a valid name"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(config, where, what):
    text = f'[services.web]\nmanager = "http"\n{config}'
    with pytest.raises(Exception, match="web") as caught, host(plugins=["ostler_http.plugin"], config=text):
        pytest.fail("it has started")
    assert where in str(caught.value)
    assert what in str(caught.value)


def test_two_services_on_one_address_are_a_mistake_of_the_later():
    text = "".join(
        f'[services.{name}]\nmanager = "http"\nlisten = ["127.0.0.1:18080"]\n' for name in ("first", "second")
    )
    with (
        pytest.raises(Exception, match="service first listens") as caught,
        host(plugins=["ostler_http.plugin"], config=text),
    ):
        pytest.fail("it has started")
    assert ":6:11: services.second.listen[0]" in str(caught.value)
