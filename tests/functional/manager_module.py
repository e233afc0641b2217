"""A module that is a manager: it has exactly one."""

from faulty_managers import EchoManager


class ModuleEcho(EchoManager):
    """The one manager of this module."""
