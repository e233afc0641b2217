from __future__ import annotations

import stat
from types import SimpleNamespace

import pytest

from ostler.errors import ConfigurationError, UntrustedOwner
from ostler.files import Trust, check_trusted, distrust_reason, user_name

ROOT, ALICE = Trust(0, 0), Trust(60_001, 60_002)


def status(uid=0, gid=0, mode=0o100644):
    return SimpleNamespace(st_uid=uid, st_gid=gid, st_mode=mode)


@pytest.mark.parametrize("trust", [ROOT, ALICE])
def test_root_and_whoever_runs_this_are_believed(trust):
    assert not distrust_reason(status(), trust)
    assert not distrust_reason(status(uid=trust.uid, gid=5), trust)
    assert not distrust_reason(status(uid=trust.uid, gid=trust.gid, mode=0o100664), trust)


def test_somebody_else_is_not_believed_and_named():
    assert distrust_reason(status(uid=60_003), ROOT) == "belongs to uid 60003, not to root"
    assert distrust_reason(status(uid=60_003), ALICE) == "belongs to uid 60003, neither to root nor to uid 60001"
    assert distrust_reason(status(uid=60_001), ROOT) != ""


def test_what_others_can_write_is_not_believed():
    assert distrust_reason(status(mode=0o100666), ROOT) == "is writable by everyone"
    assert distrust_reason(status(gid=60_009, mode=0o100664), ROOT) == "is writable by the group gid 60009"
    assert distrust_reason(status(uid=60_001, gid=60_009, mode=0o100664), ALICE) != ""
    sticky = status(mode=stat.S_IFDIR | 0o1777)
    assert distrust_reason(sticky, ROOT)
    assert not distrust_reason(sticky, ROOT, shared=True)


def test_all_are_believed_when_that_was_said():
    assert not distrust_reason(status(uid=60_003, mode=0o100777), Trust(0, 0, all=True))


def test_a_refusal_names_paths_owners_and_the_way_on(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UntrustedOwner) as caught:
        check_trusted([tmp_path / "missing", tmp_path, tmp_path / "open"], Trust.of_process())
    assert isinstance(caught.value, ConfigurationError)
    assert [str(problem) for problem in caught.value.problems] == [f"{tmp_path}/open: is writable by everyone"]
    assert "--trust-owner" in caught.value.hint
    check_trusted([tmp_path / "open"], Trust.of_process(all=True))


def test_users_are_shown_by_name_and_number():
    assert user_name(0) == "root (uid 0)"
    assert user_name(60_003) == "uid 60003"
