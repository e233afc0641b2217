from ostler.config.validation_messages import unknown_key_message


def test_the_nearest_known_name_is_offered():
    assert unknown_key_message("wrokers", ["workers", "work"], "") == 'unknown key "wrokers"; did you mean "workers"?'


def test_without_a_near_name_all_are_listed():
    assert unknown_key_message("zzz", ["b", "a"], " here", "table") == 'unknown table "zzz" here; available: a, b'
    assert unknown_key_message("zzz", [], "") == 'unknown key "zzz"; available: none'
