"""What every test can use, those of the bundled plugins as well: async tests, and the helpers of `tests/support`."""

import pytest

pytest.register_assert_rewrite("support")
pytest_plugins = ["support.async_tests", "support.fixtures"]
