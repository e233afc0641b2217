from ostler.config.wording import unknown_key


def test_the_nearest_known_name_is_offered():
    assert unknown_key("wrokers", ["workers", "work"], "") == 'unknown key "wrokers"; did you mean "workers"?'


def test_without_a_near_name_all_are_listed():
    assert unknown_key("zzz", ["b", "a"], " here", "table") == 'unknown table "zzz" here; known here: a, b'
    assert unknown_key("zzz", [], "") == 'unknown key "zzz"; known here: none'
