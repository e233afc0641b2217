import pytest

from ostler.errors import Busy
from ostler.lazy_names import lazy_names


def test_a_name_is_imported_from_its_module_when_it_is_first_used():
    assert lazy_names("ostler", {"Busy": "errors"})("Busy") is Busy
    assert lazy_names("ostler.testing", {"Busy": "errors"}, below="ostler")("Busy") is Busy


def test_a_name_that_is_not_there_is_an_attribute_error_of_the_package():
    with pytest.raises(AttributeError, match=r"^module 'ostler.store' has no attribute 'busy'$"):
        lazy_names("ostler.store", {"Busy": "errors"})("busy")
