import pytest

from ostler.cli.new_file import write_new_file
from ostler.errors import Conflict, ConnectionLost, StoreUnavailable


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path):
    write_new_file(tmp_path / "new" / "copy.db", [b"a", b"b"])
    assert (tmp_path / "new" / "copy.db").read_bytes() == b"ab"
    assert (tmp_path / "new" / "copy.db").stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_left_alone_and_nothing_half_stays(tmp_path):
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(Conflict):
        write_new_file(tmp_path / "precious", [b"x"])

    def cut_off():
        yield b"x"
        raise ConnectionLost("the daemon died")

    with pytest.raises(ConnectionLost):
        write_new_file(tmp_path / "copy.db", cut_off())
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_path_that_cannot_be_looked_at_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        write_new_file(tmp_path / "file" / "copy.db", [b"x"])
