"""Modules held back until they are touched."""

import subprocess
import sys
import threading
from importlib import import_module
from importlib.machinery import SourceFileLoader

import pytest

from ostler.cli.lazy_imports import install_lazy_imports


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module, hold it back, and return its name."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])

    def write(text, needs=""):
        (tmp_path / "held_lamp.py").write_text(text)
        install_lazy_imports({"held_lamp": needs})
        return "held_lamp"

    yield write
    sys.modules.pop("held_lamp", None)


def in_an_interpreter(code):
    start = "from ostler.cli.lazy_imports import install_lazy_imports; install_lazy_imports()\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_module_is_executed_when_touched_and_is_an_ordinary_one_from_then_on(module, capsys):
    lamp = import_module(module("print('executed')\ncolour = 'red'\n"))
    assert import_module("held_lamp") is lamp
    assert (lamp.__name__, lamp.__file__.rpartition("/")[2]) == ("held_lamp", "held_lamp.py")
    assert capsys.readouterr().out == ""
    assert (lamp.colour, capsys.readouterr().out) == ("red", "executed\n")
    assert type(lamp) is type(sys)
    assert lamp.__loader__ is lamp.__spec__.loader
    assert isinstance(lamp.__loader__, SourceFileLoader)


def test_from_import_dir_and_setting_touch_it_as_well(module):
    lamp = import_module(module("colour = 'red'\n"))
    assert "colour" in dir(lamp)
    del sys.modules["held_lamp"]
    lamp = import_module("held_lamp")
    lamp.colour = "blue"
    assert lamp.colour == "blue"  # not red again when it is executed later
    del sys.modules["held_lamp"]
    lamp = import_module("held_lamp")
    del lamp.colour
    assert not hasattr(lamp, "colour")
    del sys.modules["held_lamp"]
    exec("from held_lamp import colour; assert colour == 'red'")


def test_a_name_that_it_does_not_have_is_an_attribute_error(module):
    lamp = import_module(module("colour = 'red'\n"))
    with pytest.raises(AttributeError, match="'held_lamp' has no attribute 'size'"):
        _ = lamp.size
    assert lamp.colour == "red"


def test_a_module_may_look_at_itself_while_it_is_executed(module):
    text = "import sys\nme = sys.modules[__name__]\nhad = hasattr(me, 'colour')\nme.size = 3\ncolour = 'red'\n"
    lamp = import_module(module(text))
    assert (lamp.had, lamp.size, lamp.colour) == (False, 3, "red")


def test_an_error_of_the_module_is_raised_where_it_is_touched_and_may_come_right(module, tmp_path):
    lamp = import_module(module("import there_is_no_such_lamp\n"))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="there_is_no_such_lamp"):
            _ = lamp.colour
    (tmp_path / "held_lamp.py").write_text("colour = 'red, and longer than before'\n")
    assert lamp.colour == "red, and longer than before"


def test_threads_that_touch_it_at_once_all_find_it_complete(module):
    text = "import threading\nfirst = 1\nthreading.Event().wait(0.05)\nlast = 2\n"
    lamp = import_module(module(text))
    together, found = threading.Barrier(8), []

    def touch():
        together.wait(10)
        found.append(lamp.last)

    threads = [threading.Thread(target=touch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [2] * 8


def test_a_module_that_could_not_work_is_not_held_back(module):
    lamp = import_module(module("colour = 'red'\n", needs="there_is_no_such_lamp"))
    assert "colour" in vars(lamp)


def test_asyncio_and_what_the_daemon_uses_leave_all_of_it_alone():
    code = (
        "import asyncio, peewee, pydantic, random, sys\n"
        "async def main():\n"
        "    server = await asyncio.start_unix_server(lambda r, w: w.close(), '\\0ostler-test-held-back')\n"
        "    await asyncio.to_thread(print, end='')\n"
        "    server.close(); await server.wait_closed()\n"
        "asyncio.run(main())\n"
        "print(*sorted({'_ssl', '_hashlib'} & set(sys.modules)))\n"
    )
    assert in_an_interpreter(code) == "\n"


def test_tls_works_when_somebody_wants_it(tmp_path):
    code = (
        "import asyncio, peewee, sys\n"
        "assert '_ssl' not in sys.modules\n"
        "async def main():\n"
        "    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)\n"
        "    port = server.sockets[0].getsockname()[1]\n"
        "    import ssl\n"
        "    try:\n"
        "        await asyncio.open_connection('127.0.0.1', port, ssl=True, server_hostname='lamp')\n"
        "    except (ssl.SSLError, ConnectionError) as error:\n"
        "        print('a handshake was tried')\n"
        "    server.close()\n"
        "asyncio.run(main())\n"
        "import hashlib, hmac, secrets\n"
        "print(hashlib.sha256(b'').hexdigest()[:8], len(secrets.token_hex(4)), '_ssl' in sys.modules)\n"
        "assert asyncio.sslproto.ssl is ssl_module and asyncio.base_events.ssl is ssl_module\n"
    ).replace("ssl_module", "sys.modules['ssl']")
    assert in_an_interpreter(code) == "a handshake was tried\ne3b0c442 8 True\n"
