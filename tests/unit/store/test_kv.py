import pytest

from ostler.errors import InvalidInput


def test_values_are_kept_by_namespace(store):
    one, two = store.kv("driver/volume/local"), store.kv("driver/volume/other")
    one.set("a", {"list": [1, 2.5, None, True, "ü"]})
    two.set("a", 2)
    assert one.get("a") == {"list": [1, 2.5, None, True, "ü"]}
    assert two.items() == {"a": 2}


def test_what_is_not_there_is_the_default(store):
    assert store.kv("x").get("a") is None
    assert store.kv("x").get("a", 7) == 7


def test_set_replaces_and_delete_says_whether_it_was_there(store):
    kv = store.kv("x")
    kv.set("a", 1)
    kv.set("a", None)
    assert kv.get("a", 7) is None
    assert kv.delete("a")
    assert not kv.delete("a")


def test_items_can_be_asked_for_by_prefix(store):
    kv = store.kv("x")
    for key in ("lamp/b", "lamp/a", "lamp_c", "door"):
        kv.set(key, key)
    assert list(kv.items("lamp/")) == ["lamp/a", "lamp/b"]
    assert list(kv.items()) == ["door", "lamp/a", "lamp/b", "lamp_c"]


@pytest.mark.parametrize("value", [object(), {1, 2}, float("inf"), b"x"])
def test_what_is_no_json_is_refused_by_key(store, value):
    with pytest.raises(InvalidInput, match="the value of a of x is not plain JSON"):
        store.kv("x").set("a", value)


async def test_it_can_be_part_of_a_write_on_the_loop(store):
    await store.awrite(lambda: store.kv("x").set("a", 1))
    assert store.kv("x").get("a") == 1
