"""What a manager is and what it is handed."""

from ostler.manager.base import Manager, ManagerEnvironment, ManagerOptions, namespace_versions

__all__ = ["Manager", "ManagerEnvironment", "ManagerOptions", "namespace_versions"]
