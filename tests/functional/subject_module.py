"""A module that is a manager: it has exactly one."""

from subjects import EchoManager


class ModuleEcho(EchoManager):
    """The one manager of this module."""
