import pytest

from ostler.log.masking import is_secret_name, mask_field, mask_text


@pytest.mark.parametrize("name", ["password", "DB_PASSWORD", "api_key", "apikey", "client_secret", "auth_token"])
def test_names_of_secrets_are_known(name):
    assert is_secret_name(name)
    assert mask_field(name, "hunter2") == "***"


@pytest.mark.parametrize("name", ["path", "key", "service", "request_id"])
def test_other_names_are_left_alone(name):
    assert mask_field(name, "x") == "x"


def test_secrets_deep_inside_are_masked():
    value = {"user": "a", "login": {"password": "x", "tries": [{"token": "y"}, 2]}}
    assert mask_field("options", value) == {"user": "a", "login": {"password": "***", "tries": [{"token": "***"}, 2]}}


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("password=hunter2 and more", "password=*** and more"),
        ("mysql://h/?user=a&token=abc&x=1", "mysql://h/?user=a&token=***&x=1"),
        ("{'db_password': 'a b', 'x': 1}", "{'db_password': ***, 'x': 1}"),
        ('{"secret": "x", "y": 2}', '{"secret": ***, "y": 2}'),
        ("tokens=a,b", "tokens=***,b"),
        ("the token has expired: renew it", "the token has expired: renew it"),
        ("password: none was given", "password: none was given"),
        ("password=***", "password=***"),
    ],
)
def test_pairs_in_a_text_are_masked_and_sentences_are_not(text, safe):
    assert mask_text(text) == safe
