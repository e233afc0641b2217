def test_values_tell_where_each_comes_from_and_mask_secrets(lamp, tmp_path):
    (tmp_path / "f").write_text("secret", encoding="utf-8")
    configuration = lamp(
        f"""[services.lamp]
manager = "x"
token = {{file = "{tmp_path}/f"}}
pin = "1234"
drivers.hall.driver = "gpio"
[log.levels]
"ostler.x" = "debug"
""",
    )
    values = {value.path: (value.value, value.origin) for value in configuration.values()}
    assert values["services.lamp.manager"] == ("x", "ostler.toml:2:1")
    assert values["services.lamp.token"] == ("***", "ostler.toml:3:1")
    assert values["services.lamp.pin"] == ("***", "ostler.toml:4:1")
    assert values["services.lamp.timeout"] == (None, "default")
    assert values["services.lamp.poll"] == (30.0, "default")
    assert values["services.lamp.drivers.hall.driver"] == ("gpio", "ostler.toml:5:14")
    assert values["services.lamp.drivers.hall.path"] == ("/dev/gpio", "default")
    assert values['log.levels."ostler.x"'] == ("debug", "ostler.toml:7:1")
    assert "services.lamp.drivers" not in values
    assert values["plugins.required"] == ([], "default")


def test_a_secret_that_is_not_set_is_shown_as_not_set(lamp):
    values = {value.path: value.value for value in lamp('[services.lamp]\nmanager = "x"\n').values()}
    assert values["services.lamp.token"] is None


def test_values_can_travel(lamp):
    import msgspec

    from ostler.types import OptionValue

    values = lamp('[services.lamp]\nmanager = "x"\n').values()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(values), type=list[OptionValue]) == values
