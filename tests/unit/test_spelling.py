from ostler.spelling import nearest, suggest


def test_the_nearest_word_is_offered_else_what_there_is():
    assert suggest("volum", ["volume", "scheduler"]) == "did you mean 'volume'?"
    assert suggest("x", ["volume", "scheduler"]) == "available: scheduler, volume"
    assert suggest("x", []) == ""
    assert suggest("x", [f"word{n}" for n in range(30)]) == ""


def test_the_nearest_word_is_found_whatever_its_case():
    assert nearest("LEVEL", ["level", "format"]) == "level"
    assert nearest("levle", iter(["format", "level"])) == "level"


def test_words_that_are_alike_by_chance_are_not_near():
    assert nearest("placement", ["volume", "scheduler"]) == ""
    assert nearest("x", []) == ""
