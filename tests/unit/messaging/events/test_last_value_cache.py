from ostler.messaging.events.last_value_cache import LastValueCache


def test_the_last_of_each_key_is_kept_in_the_order_of_publishing():
    last = LastValueCache(10, 10_000)
    for key, body in [(b"a.1", b"one"), (b"b.1", b"two"), (b"a.2", b"three"), (b"a.1", b"four")]:
        last.put(key, body)
        last.matching([b""])  # sorted in, as now and then
    assert last.matching([b"a."]) == [b"three", b"four"]
    assert last.matching([b"a.", b"b."]) == [b"two", b"three", b"four"]
    assert last.matching([b"c"]) == []


def test_it_is_bounded_by_keys_and_by_bytes():
    last = LastValueCache(3, 1000)
    for number in range(500):
        last.put(b"key%d" % number, b"x" * 10)
    assert last.stats == (3, 30)
    for number in range(500):
        last.put(b"key%d" % number, b"x" * 120)
    count, size = last.stats
    assert count <= 3
    assert size <= 1000
    last.set_limits(100, 100)
    assert last.stats[1] <= 100
    last.set_limits(0, 1000)
    last.put(b"a", b"b")
    assert last.stats == (0, 0)


def test_an_event_too_large_for_the_cache_is_not_kept_nor_is_the_one_before_it():
    last = LastValueCache(10, 80_000)
    last.put(b"small", b"x")
    last.put(b"big", b"x")
    last.put(b"big", b"x" * 10_001)
    assert last.matching([b""]) == [b"x"]
    assert last.stats == (1, 1)


def test_a_topic_with_ever_new_names_does_not_push_out_the_events_of_another():
    last = LastValueCache(10, 10_000, "node1")
    last.put(b"lamp.node1.on", b"precious")
    for number in range(500):
        last.put(b"noise.node1.n%d" % number, b"x")
    assert last.matching([b"lamp."]) == [b"precious"]
    assert last.stats[0] == 10
    for number in range(500):
        last.put(b"noise.node1.n%d" % number, b"x" * 1200)
    assert last.matching([b"lamp."]) == [b"precious"]
    assert last.stats[1] <= 10_000
