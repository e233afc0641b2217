"""What a manager is and what it gets: the base class, its options and its environment.

Not here: the life cycle that calls its hooks (`ostler.service`), and exposed methods (`ostler.messaging.interface`).
"""

from ostler.manager.manager import Manager, ManagerEnvironment, ManagerOptions, namespace_versions

__all__ = ["Manager", "ManagerEnvironment", "ManagerOptions", "namespace_versions"]
