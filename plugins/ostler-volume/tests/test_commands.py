from __future__ import annotations

import copy
import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from ostler import Conflict, NoCapacity, NotFound
from ostler.cli import invocation
from ostler_volume.api_types import Snapshot, SnapshotListing, Upload, Volume, VolumeListing
from ostler_volume.commands import DaemonHost, app

GIB = 2**30
A = Volume(name="a", size=10 * GIB, state="available", backend="local", host="node1", snapshots=1, created=1e9)
B = Volume(name="b", size=GIB, state="in-use", backend="local", host="node2", device="/dev/loop7", source="volume:a")
S = Snapshot(volume="a", name="s", size=10 * GIB, state="available", backend="local", host="node1", created=1e9)


class FakeClient:
    def __init__(self, *answers):
        self.answers, self.asked, self.timeout = list(answers), [], None
        self.options, self.asked_with = {}, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def on(self, **options):
        view = copy.copy(self)
        view.options = {**self.options, **options}
        return view

    def call(self, topic, method, /, **arguments):
        self.asked.append((topic, method, arguments))
        self.asked_with.append(self.options)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, topic, method, /, **arguments):
        return FinishedOperation(self.call(topic, method, **arguments))


class FinishedOperation:
    """An operation whose result was there at once."""

    def __init__(self, result):
        self._result = result

    def watch(self, timeout=None):
        return iter(())

    def result(self, timeout=None):
        return self._result


@pytest.fixture
def run():
    def invoke(client, *arguments, as_json=False):
        def connect(_root, timeout, *_):
            client.timeout = timeout
            return client

        with invocation.use_invocation(invocation.Invocation(json=as_json, connect=connect)):
            result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return invoke


def test_create_asks_for_what_was_said_with_time_for_a_copy(run):
    client = FakeClient(A)
    shown = run(client, "create", "a", "--size", "10GiB", "--backend", "local").stdout
    assert shown == "created volume a (10GiB) on backend local of node1\n"
    assert client.asked == [
        (
            "volume",
            "create_volume",
            {"name": "a", "size": "10GiB", "backend": "local", "image": "", "source": "", "snapshot": ""},
        )
    ]
    assert client.timeout > 86400
    assert client.asked_with[0] == {"type": Volume}


def test_create_from_an_image_in_an_image_directory_sends_its_absolute_path(run):
    client = FakeClient(["/srv/other", str(Path.cwd())], A)
    run(client, "create", "a", "--size", "10GiB", "--from", "image.raw")
    assert [asked[1] for asked in client.asked] == ["image_directories", "create_volume"]
    assert client.asked[1][2]["image"] == str(Path.cwd() / "image.raw")


def test_create_from_any_other_file_hands_its_content_over(run, tmp_path):
    (tmp_path / "image.raw").write_bytes(b"x" * 1000)
    begun = Upload(id="7", name="a", size=1024, backend="local", piece=600)
    client = FakeClient(["/srv/other"], begun, None, None, A)
    assert "on backend local" in run(client, "create", "a", "--from", str(tmp_path / "image.raw")).stdout
    begin, *pieces, finish = client.asked[1:]
    wanted = {"name": "a", "length": 1000, "size": "", "backend": "", "label": "image.raw", "anywhere": True}
    assert begin == ("volume", "begin_upload", wanted)
    assert [(piece[1], piece[2]["offset"], len(piece[2]["data"])) for piece in pieces] == [
        ("upload_piece", 0, 600),
        ("upload_piece", 600, 400),
    ]
    assert finish == ("volume", "finish_upload", {"upload": "7"})


def test_an_upload_that_fails_is_given_up(run, tmp_path):
    (tmp_path / "image.raw").write_bytes(b"x" * 1000)
    begun = Upload(id="7", name="a", size=1024, backend="local", piece=600)
    client = FakeClient([], begun, NoCapacity("full"), None)
    with pytest.raises(NoCapacity):
        run(client, "create", "a", "--from", str(tmp_path / "image.raw"))
    assert client.asked[-1] == ("volume", "cancel_upload", {"upload": "7"})


def test_holes_and_zeros_are_not_sent(run, tmp_path):
    with (tmp_path / "image.raw").open("wb") as file:
        file.write(b"x" * 4096 + bytes(8192))
        file.seek(2**30)
        file.write(b"y" * 4096)
    begun = Upload(id="7", name="a", size=2**30 + 4096, backend="local", piece=4096)
    client = FakeClient([], begun, None, None, A)
    run(client, "create", "a", "--from", str(tmp_path / "image.raw"))
    assert [asked[2]["offset"] for asked in client.asked if asked[1] == "upload_piece"] == [0, 2**30]


@pytest.mark.parametrize(("option", "value"), [("source", "gold"), ("snapshot", "gold@v1")])
def test_create_from_a_volume_or_snapshot_needs_no_size(run, option, value):
    client = FakeClient(A)
    run(client, "create", "a", f"--{option}", value)
    assert client.asked[0][2][option] == value
    assert client.asked[0][2]["size"] == ""


def test_create_as_json_is_the_volume(run):
    assert json.loads(run(FakeClient(A), "create", "a", as_json=True).stdout)["size"] == 10 * GIB


def test_volumes_are_listed_in_columns(run):
    client = FakeClient(VolumeListing(volumes=[A, B], host="node1"))
    assert run(client, "list", "--backend", "local").stdout.splitlines() == [
        "NAME      SIZE  STATE      HOST   BACKEND  SNAPSHOTS  DEVICE      SOURCE    WHY",
        "a        10GiB  available  node1  local            1  -           -         -",
        "b@node2   1GiB  in-use     node2  local            0  /dev/loop7  volume:a  -",
    ]
    assert client.asked == [("volume", "volume_listing", {"backend": "local", "on_host": ""})]


def test_lists_say_which_hosts_could_not_be_asked_and_are_still_lists_as_json(run):
    away = {"node3": "node3 has been unreachable for 7s"}
    for words, listing in (
        (["list"], VolumeListing(volumes=[A], unreachable=away)),
        (["snapshot", "list"], SnapshotListing(snapshots=[S], unreachable=away)),
    ):
        assert "cannot query host node3: node3 has been unreachable for 7s" in run(FakeClient(listing), *words).stderr
        assert len(json.loads(run(FakeClient(listing), *words, as_json=True).stdout)) == 1


def test_a_volume_is_shown_with_all_that_is_known(run):
    shown = run(FakeClient(B), "show", "b").stdout
    for words in ("1GiB (1073741824 bytes)", "in-use", "/dev/loop7", "volume:a"):
        assert words in shown
    assert json.loads(run(FakeClient(B), "show", "b", as_json=True).stdout)["device"] == "/dev/loop7"


def test_extend_says_the_new_size(run):
    client = FakeClient(A)
    assert run(client, "extend", "a", "10GiB").stdout == "extended volume a on node1 to 10GiB\n"
    assert client.asked == [("volume", "extend_volume", {"name": "a", "size": "10GiB"})]


def test_attach_prints_the_device_alone_for_scripts(run):
    assert run(FakeClient(DaemonHost("node2"), B), "attach", "b").stdout == "/dev/loop7\n"
    assert run(FakeClient(DaemonHost("node1"), B), "attach", "b").stdout == "/dev/loop7 on node2\n", (
        "no device of this host"
    )
    assert run(FakeClient(A), "detach", "a").stdout == "detached volume a on node1\n"


def test_delete_takes_several_and_goes_on_after_a_refusal(run):
    client = FakeClient(A, None, B, None)
    said = "deleted volume a on node1\ndeleted volume b on node2\n"
    assert run(client, "delete", "a", "b@node2").stdout == said
    assert client.asked[3] == ("volume", "delete_volume", {"name": "b", "on_host": "node2"})
    client = FakeClient(A, Conflict("a is in-use"), NotFound("no b"), A, None)
    with pytest.raises(NotFound, match="no b"):
        run(client, "delete", "a", "b", "c")
    assert [asked[2]["name"] for asked in client.asked if asked[1] == "get_volume"] == ["a", "b", "c"]


def test_delete_as_json_says_what_is_gone(run):
    assert json.loads(run(FakeClient(A, None, B, None), "delete", "a", "b", as_json=True).stdout) == {
        "deleted": ["a", "b"]
    }


def test_snapshots_are_made_listed_and_deleted(run):
    client = FakeClient(S, SnapshotListing(snapshots=[S], host="node1"), A, None)
    assert run(client, "snapshot", "create", "a", "s").stdout == "created snapshot a@s on node1\n"
    listed = run(client, "snapshot", "list", "a").stdout.splitlines()
    assert listed[0].split() == ["VOLUME", "NAME", "SIZE", "STATE", "HOST", "CREATED", "WHY"]
    assert listed[1].split()[:4] == ["a", "s", "10GiB", "available"]
    assert run(client, "snapshot", "delete", "a", "s").stdout == "deleted snapshot a@s on node1\n"
    asked = ["create_snapshot", "snapshot_listing", "get_volume", "delete_snapshot"]
    assert [each[1] for each in client.asked] == asked
    assert client.asked[3][2] == {"volume": "a", "name": "s", "on_host": "node1"}


def test_another_service_of_the_same_manager_can_be_chosen(run):
    client = FakeClient(VolumeListing(volumes=[]), SnapshotListing(snapshots=[]))
    run(client, "--topic", "archive", "list")
    run(client, "--topic", "archive", "snapshot", "list")
    assert [asked[0] for asked in client.asked] == ["archive", "archive"]


def test_what_was_not_as_usual_is_said_beside_the_answer(run):
    made = msgspec.structs.replace(A, note="node1/fast was chosen before and refused: full")
    shown = run(FakeClient(made), "create", "a", "--size", "10GiB")
    assert shown.stdout == "created volume a (10GiB) on backend local of node1\n"
    assert "ostler: node1/fast was chosen before and refused: full" in shown.stderr


def test_a_volume_can_be_made_on_a_host_that_is_named_also_from_a_file(run, tmp_path):
    client = FakeClient(B)
    run(client, "create", "b", "--size", "1GiB", "--host", "node2")
    assert client.asked[0][2]["on_host"] == "node2"
    (tmp_path / "image.raw").write_bytes(b"x" * 512)
    begun = Upload(id="7", name="b", size=512, backend="local", piece=512, note="slow", host="node2")
    client = FakeClient([], begun, None, B)
    shown = run(client, "create", "b", "--from", str(tmp_path / "image.raw"), "--host", "node2")
    assert client.asked_with[0]["host"] == client.asked[1][2]["on_host"] == "node2"
    assert [options["host"] for options in client.asked_with[2:]] == ["node2", "node2"], "the pieces, and the end"
    assert "ostler: slow" in shown.stderr
