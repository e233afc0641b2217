"""What a manager offers over RPC, looked at without running any of it: versions, namespaces, signatures."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from inspect import getdoc
from types import MethodType
from typing import Any

import msgspec

from ostler.errors import ContractError
from ostler.messaging.exposed import Exposure, exposure_of
from ostler.messaging.rpc.signature import Signature
from ostler.version_numbers import parse_version


class Offer(msgspec.Struct, frozen=True):
    """One exposed method of a class: `name` is `reset`, or `admin.reset` in a namespace."""

    namespace: str
    name: str
    exposure: Exposure
    signature: Signature
    doc: str


def version_of(text: object, where: str) -> tuple[int, int]:
    """Return a version `major.minor` as numbers.

    Args:
        text: The version.
        where: Whose it is, for the message.

    Raises:
        ContractError: It is no such version.
    """
    numbers = parse_version(text)
    if numbers is None:
        raise ContractError(
            f"the version of {where} is {text!r}, which is no version", hint='write it as "major.minor", such as "1.0"'
        )
    return numbers


def check_brought(brought: str, offered: str, where: str) -> None:
    """Hold a method to the version of what it belongs to.

    Args:
        brought: The version that brought the method.
        offered: The version of its manager or namespace.
        where: `topic.method`, for messages.

    Raises:
        ContractError: One of the two is no version, or the method is newer than what it belongs to.
    """
    method, whole = version_of(brought, where), version_of(offered, where.rpartition(".")[0])
    if method[0] != whole[0] or method > whole:
        raise ContractError(
            f"{where} is of version {brought}, and the `rpc_version` it belongs to is {offered}",
            hint=f'raise `rpc_version` to "{brought}"' if method > whole else f'say `version="{whole[0]}.0"`',
            method=where, version=brought, offered=offered,
        )  # fmt: skip


def check_namespaces(topic: str, target: object, namespaces: Mapping[str, object]) -> None:
    """Look whether the names of namespaces can stand before a method's, and mean one thing each.

    Raises:
        ContractError: One cannot.
    """
    for name in namespaces:
        if not name.isidentifier() or name.startswith("_"):
            raise ContractError(
                f"{topic} has a namespace {name!r}, which is no name", hint="use letters, digits and _", namespace=name
            )
        if exposure_of(getattr(target, name, None)) is not None:
            raise ContractError(
                f"{topic} has a namespace {name!r} and a method of that name",
                hint="rename one of them",
                namespace=name,
            )


def rpc_version_of(target: object, where: str) -> str:
    """Return the `rpc_version` of a manager or namespace.

    Raises:
        ContractError: It is no version.
    """
    version = getattr(target, "rpc_version", "1.0")
    version_of(version, where)
    return str(version)


def survey(name: str, manager: type) -> list[Offer]:
    """Return what a manager class offers, its namespaces included, in order of their names.

    Args:
        name: The manager's name, for messages.
        manager: Its class.

    Raises:
        ContractError: Something of it cannot be offered; the first of all.
    """
    found = []
    for each in _survey(name, manager):
        if isinstance(each, ContractError):
            raise each
        found.append(each)
    return found


def faults_of(name: str, manager: type, reserved: Collection[str] = ()) -> list[str]:
    """Return everything for which a manager class could not be offered; arguments as of `survey`.

    Args:
        name: The manager's name, for messages.
        manager: Its class.
        reserved: Names of attributes that its objects have, which hide methods of those names.
    """
    hidden = [attribute for attribute in sorted(reserved) if exposure_of(getattr(manager, attribute, None)) is not None]
    return [
        *(str(each) for each in _survey(name, manager) if isinstance(each, ContractError)),
        *(f"{name}.{attribute} cannot be offered: managers have an attribute of that name" for attribute in hidden),
    ]


def _survey(name: str, manager: type) -> Iterator[Offer | ContractError]:
    namespaces: Mapping[str, type] = getattr(manager, "namespaces", {})
    try:
        check_namespaces(name, manager, namespaces)
    except ContractError as error:
        yield error
    for namespace, cls in [("", manager), *sorted(namespaces.items())]:
        whole = f"{name}.{namespace}" if namespace else name
        try:
            offered = rpc_version_of(cls, whole)
        except ContractError as error:
            yield error
            continue
        for attribute in dir(cls):
            method: Any = getattr(cls, attribute, None)
            exposure = exposure_of(method)
            if exposure is None or not callable(method):
                continue
            try:
                yield _offer(namespace, attribute, method, exposure, cls, whole, offered)
            except ContractError as error:
                yield error


def _offer(
    namespace: str, attribute: str, method: Any, exposure: Exposure, cls: type, whole: str, offered: str
) -> Offer:
    where = f"{whole}.{attribute}"
    check_brought(exposure.version, offered, where)
    # Bound to the class, for want of an instance: `self` is left out of the signature either way.
    signature = Signature.checked(MethodType(method, cls), where, exposure.secret)
    return Offer(
        namespace, f"{namespace}.{attribute}" if namespace else attribute, exposure, signature, getdoc(method) or ""
    )
