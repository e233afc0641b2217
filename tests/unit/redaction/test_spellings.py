"""Secrets are found in whatever way they are written, once or twice; texts without them are left alone."""

import base64
import html
import json
import shlex
import urllib.parse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostler.redaction import SecretValues

URL = urllib.parse


def core(data, before, urlsafe=False):
    """Return base64 of a longer text with `data` in it, behind that many bytes and before some more."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return encode(b"u:"[:before] + data + b" of it").decode()


def raw(text):
    return text.encode()


ENCODINGS = {
    "plain": str,
    "quote": URL.quote,
    "quote all": lambda text: URL.quote(text, safe=""),
    "quote in lower case": lambda text: "".join(
        char if char.isalnum() and char.isascii() else "".join(f"%{byte:02x}" for byte in raw(char)) for char in text
    ),
    "quote everything": lambda text: "".join(f"%{byte:02X}" for byte in raw(text)),
    "form": URL.quote_plus,
    "JSON": lambda text: json.dumps({"x": text}),
    "JSON of Unicode": lambda text: json.dumps([text], ensure_ascii=False),
    "JSON with slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON for HTML": lambda text: (
        json.dumps(text).replace("<", "\\u003c").replace("&", "\\u0026").replace("'", "\\u0027")
    ),
    "JSON everything": lambda text: "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else char for char in text),
    "repr": repr,
    "repr in both quotes": lambda text: repr(["'\"", text]),
    "ascii": ascii,
    "repr of bytes": lambda text: repr(raw(text)),
    "bytes in hexadecimal escapes": lambda text: "".join(f"\\x{byte:02x}" for byte in raw(text)),
    "shell of Python": shlex.quote,
    "shell": lambda text: "'" + text.replace("'", "'\\''") + "'",
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "HTML in numbers": lambda text: "".join(char if char.isalnum() else f"&#{ord(char)};" for char in text),
    "HTML in hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "hex": lambda text: raw(text).hex(),
    "HEX": lambda text: raw(text).hex().upper(),
    "hex with colons": lambda text: raw(text).hex(":"),
    "HEX with blanks": lambda text: raw(text).hex(" ").upper(),
    "base64": lambda text: base64.b64encode(raw(text)).decode(),
    "base64 without padding": lambda text: base64.b64encode(raw(text)).decode().rstrip("="),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(raw(text)).decode(),
    "base64 behind one byte": lambda text: core(raw(text), 1),
    "base64 behind two bytes": lambda text: core(raw(text), 2),
    "base64 for URLs behind one byte": lambda text: core(raw(text), 1, urlsafe=True),
    "base64 for URLs behind two bytes": lambda text: core(raw(text), 2, urlsafe=True),
    "base64 in a URL": lambda text: URL.quote(core(raw(text), 2), safe=""),
}
PEM = """-----BEGIN KEY-----
MIIEvQIBADANBgkqhkiG
  AbCdEfGh12345678abcd
================
short
-----END KEY-----
"""
UNUSUAL = {
    "quote in lower case", "quote everything", "JSON for HTML", "JSON everything", "bytes in hexadecimal escapes",
    "HTML in numbers", "HTML in hexadecimal",
}  # fmt: skip
"""What was escaped like that, and in base64 or hexadecimal after that, is not found; nor if it was not ASCII."""
ONE = sorted({*ENCODINGS} - {"base64 in a URL"})
"""The encodings that are not two already."""
BINARY = {name for name in ENCODINGS if name.lower().startswith(("hex", "base64"))}
VALUES = {
    "letters": "hunter2",
    "dashes": "hunter2-Zq81",
    "URL": "tok-AbCd991/x+y",
    "every sign": "a \"q'\\/+&<>%?=#;:@!$()*,[]{}~|^`",
    "base64 itself": "TVlTRUNSRVQ+/w==",
    "escapes itself": "a%41b&amp;c\\n%2541",
    "lines": "first line of it\nsecond\tline",
    "not ASCII": "pässwörd-Ωμέγα-🔑",
    "long": "".join(f"{number:05d}/" for number in range(200)),
    "shortest": "abc+/=",
    "short with a backslash": "R\\=Q$$",
}
secrets = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=8, max_size=20) | st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=8, max_size=40
)
ordinary = st.text(st.sampled_from("the quick brown fox jumps over 10 lazy dogs: \n-/%&\\\"'=+;"), max_size=120)


def holding(*known):
    values = SecretValues()
    for value in known:
        values.add(value)
    return values


def pieces(text, size=8):
    return {text[at : at + size] for at in range(len(text) - size + 1)}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_every_spelling_is_found_and_what_is_around_it_stays(encode, value):
    spelt = encode(value)
    redacted = holding(value).redact(f"at https://x/?q={spelt}|more of it")
    assert redacted.startswith("at https://x/?q=")
    assert redacted.endswith("|more of it")
    rest = redacted.removeprefix("at https://x/?q=").removesuffix("|more of it")
    assert "***" in rest
    assert len(rest) <= 28, rest  # the mask, and what stood around the secret in what was encoded


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    secrets,
    st.sampled_from(sorted({*ENCODINGS} - {"base64 in a URL"})),
    st.sampled_from(sorted(ENCODINGS)),
    ordinary,
    ordinary,
)
def test_nothing_is_left_of_a_secret_that_was_encoded_once_or_twice(secret, first, second, before, after):
    spelt = ENCODINGS[second](ENCODINGS[first](secret))
    redacted = holding(secret).redact(f"{before} |{spelt}| {after}")
    unusual = first in UNUSUAL and (second in BINARY or not secret.isascii())
    assert "***" in redacted or unusual, (spelt, redacted)
    around = f"{before}|{after}"
    left = redacted.replace("***", "\0")
    assert secret not in left or secret in around
    assert not {piece for piece in pieces(secret) if piece in left and piece not in around}


@given(secrets, ordinary)
def test_a_text_without_secrets_is_unchanged(secret, text):
    assert holding("hunter2-canary", "tok/AbCd+991==", PEM).redact(text) == text
    if secret not in text:
        assert holding(f"{secret}\0{secret}").redact(text) == text


@given(st.lists(st.text("ab1", min_size=6, max_size=12), min_size=1, max_size=4), st.text("ab1", max_size=60))
def test_of_secrets_that_overlap_every_character_is_hidden(known, text):
    covered = {
        at + index
        for value in known
        for at in range(len(text))
        if text.startswith(value, at)
        for index in range(len(value))
    }
    expected = "".join("\0" if at in covered else char for at, char in enumerate(text))
    while "\0\0" in expected:
        expected = expected.replace("\0\0", "\0")
    assert holding(*known).redact(text) == expected.replace("\0", "***")


def test_secrets_that_contain_or_overlap_each_other_go_together():
    values = holding("hunter2-canary", "canary-second", "nary-s")
    assert values.redact("hunter2-canary-second") == "***"
    assert SecretValues().redact("an-argument-of-it", extra_values=["an-argument", "argument-of"]) == "***-it"
    assert holding("an-argument").redact("an-argument-of-it", extra_values=["argument-of"]) == "***-it"


@pytest.mark.parametrize("encode", [str, raw, "base64", "hex", "repr of bytes"])
def test_a_long_line_of_a_secret_of_several_lines_is_one_by_itself(encode):
    values = holding(PEM)
    encode = ENCODINGS.get(encode, encode)
    for line in ("MIIEvQIBADANBgkqhkiG", "AbCdEfGh12345678abcd"):
        assert encode(line) not in values.redact_deep({"x": [encode(line)]})["x"]
    for line in ("-----BEGIN KEY-----", "================", "short"):
        assert values.redact(line) == line


def test_bytes_numbers_sets_and_keys_are_redacted_in_structures():
    values = holding("hunter2-canary", "123456")
    assert values.redact_deep({
        b"hunter2-canary": bytearray(b"\xff hunter2-canary"), "hunter2-canary": memoryview(b"hunter2-canary"),
        ("hunter2-canary", 1): {"hunter2-canary"}, 123456: 123456, "n": [1, 2.5, None, True, b"\xff", 7654321],
    }) == {
        b"***": b"\xff ***", "***": b"***", ("***", 1): ["***"], "***": "***",  # noqa: F601
        "n": [1, 2.5, None, True, b"\xff", 7654321],
    }  # fmt: skip


def test_an_argument_of_bytes_is_found_in_its_spellings():
    data = b"\xff\x00by'tes\xfe"
    for spelt in (
        repr(data), str(data), data.hex(), base64.b64encode(b"u" + data).decode(), data.decode("latin-1"),
        URL.quote(data), json.dumps(data.decode("latin-1")), data.decode("utf-8", "backslashreplace"),
    ):  # fmt: skip
        assert "***" in SecretValues().redact(f"x {spelt} y", extra_values=[data]), spelt


def test_the_spellings_of_a_large_secret_take_bounded_memory():
    from ostler.redaction import spellings_of

    for secret in ("0a'\\\"/é" * 10_000, "\n".join(f"{number:020d}-line-of-it" for number in range(2000))):
        assert sum(map(len, spellings_of(secret))) <= 6 * len(secret)
        assert holding(secret).redact(f"x {secret} y") == "x *** y"
    assert sum(map(len, spellings_of("\0" * 40))) <= 128 * 1024


def test_of_a_large_argument_only_itself_is_looked_for_and_it_is_not_kept():
    large = "0a'\\\"/é" * 100_000
    values = SecretValues()
    assert values.redact(f"x {large} {raw(large).hex()} y", extra_values=[large]) == f"x *** {raw(large).hex()} y"
    values.add_arguments([large])
    assert values.redact(f"x {large} y") == "x *** y"
    values.remove_arguments([large])
    assert values.redact(f"x {large} y") == f"x {large} y"


def test_a_row_of_equal_characters_takes_no_time_for_each():
    assert holding("a" * 64_000).redact("b" + "a" * 1_000_000) == "b***"


def test_escapes_before_a_secret_do_not_hide_it():
    values = holding("hunter2/canary")
    assert values.redact('{"x": "a\\nhunter2\\/canary\\n"}') == '{"x": "a\\n***\\n"}'
    assert values.redact("C:\\hunter2/canary") == "C:***"
    assert values.redact("a%20hunter2%2Fcanary%20b%") == "a%20***%20b%"
    assert values.redact("&lt;hunter2&#47;canary&gt;&#99999999;") == "&lt;***&gt;&#99999999;"
