import socket

import pytest

from ostler.config import load_text, validate
from ostler.config.core_sections import CORE_SECTIONS, default_host_name
from ostler.config.options import option_metadata
from ostler.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "label"),
    [("node1.example.org", "node1"), ("node 1", "node-1"), ("", "localhost"), ("-", "localhost"), ("ü1", "1")],
)
def test_the_host_is_the_first_label_of_the_machines_name(monkeypatch, name, label):
    # The name of the machine is what it is.
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert default_host_name() == label
    assert validate(load_text(""), {}, {}).daemon.host == label


def test_every_option_of_the_core_says_what_it_does_and_what_a_change_needs():
    for section, model in CORE_SECTIONS.items():
        assert model.__doc__.startswith(f"`[{section}]`: ")
        for name, field in model.model_fields.items():
            assert field.description, name
            assert not field.description.endswith("."), name
            assert option_metadata(field).reload in {"live", "driver", "service", "daemon"}


@pytest.mark.parametrize("member", ["alice", "1000", "@staff", "@1000", "*", "svc.x_y-z", "machine$"])
def test_members_of_roles(member):
    assert validate(load_text(f'[access]\nviewer = ["{member}"]'), {}, {}).access.viewer == [member]


@pytest.mark.parametrize("member", ["", "a b", "**", "@", "@*", "-x", "a:b"])
def test_what_is_no_member_of_a_role_is_refused(member):
    with pytest.raises(ConfigurationError, match=r"access\.viewer\[0\]: expected a user"):
        validate(load_text(f'[access]\nviewer = ["{member}"]'), {}, {})


@pytest.mark.parametrize(
    ("mode", "good"), [("0660", True), ("660", True), ("0668", False), ("77", False), ("rw", False)]
)
def test_the_mode_of_the_sockets_is_octal(mode, good):
    text = f'[messaging]\nsocket_mode = "{mode}"'
    if good:
        assert int(validate(load_text(text), {}, {}).messaging.socket_mode, 8) == 0o660
    else:
        with pytest.raises(ConfigurationError, match="a file mode in octal digits"):
            validate(load_text(text), {}, {})
