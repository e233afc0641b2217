"""What the room shows to the outside."""

import subprocess
import sys

import pytest

import ostler.systemd


@pytest.mark.parametrize("name", ostler.systemd.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(ostler.systemd, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ostler.systemd.nothing


def test_importing_the_room_imports_none_of_its_parts():
    code = (
        "import sys, ostler.systemd; print([m for m in sys.modules if m.startswith(('ostler.systemd.', 'sdnotify'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
