"""Volumes on a host: a manager, a driver contract, and the `file` driver."""
