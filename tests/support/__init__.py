"""Helpers of more than one test file: fakes, builders, waits. `pythonpath` in pyproject.toml makes them importable."""
