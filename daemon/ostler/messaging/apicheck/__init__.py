"""Compares the interfaces of two releases of a manager; used by `ostler plugin api` and by tests.

`interface_diff` writes an interface to a file, and says what a change breaks and which version it requires. Not
here: anything that a running daemon needs; no daemon imports this package.
"""
