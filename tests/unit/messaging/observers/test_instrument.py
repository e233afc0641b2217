import sys

import pytest

from ostler import instrument
from ostler.errors import OstlerError


def test_without_opentelemetry_the_error_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ostler.messaging.observers.opentelemetry", None)
    with pytest.raises(OstlerError, match="OpenTelemetry is not installed") as caught:
        instrument(object())
    assert caught.value.hint == "pip install 'ostler[otel]'"
