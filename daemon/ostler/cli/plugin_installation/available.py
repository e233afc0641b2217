"""Finds plugins that could be installed: packages named `ostler-…` in the places where pip looks."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec

from ostler.cli.plugin_installation.requirements import normalise_name, wheel_name
from ostler.errors import InvalidInput, OstlerError

PREFIX = "ostler-"
"""The beginning of the names of plugins in an index; any other package is installed by its name."""
_DEFAULT_INDEX = "https://pypi.org/simple"
_TIME_LIMIT = 30.0
_MAX_SIZE = 256 * 1024 * 1024
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LINK = re.compile(rb'<a\s[^>]*href="([^"]*)"', re.IGNORECASE)


class _Project(msgspec.Struct):
    name: str


class _ProjectList(msgspec.Struct):
    projects: list[_Project]


def package_places(settings: dict[str, str], sources: Iterable[str]) -> list[str]:
    """Return the indexes and directories that pip searches.

    Args:
        settings: Pip's settings.
        sources: Pip's options: `--find-links PLACE`, `--no-index`.
    """
    options = list(sources)
    places = [options[number + 1] for number, option in enumerate(options) if option == "--find-links"]
    if "--no-index" not in options:
        places += settings.get("find-links", "").split()
        places += [settings.get("index-url", _DEFAULT_INDEX), *settings.get("extra-index-url", "").split()]
    return list(dict.fromkeys(places))


def plugin_names(place: str) -> set[str]:
    """Return the names of packages in a place that begin as those of plugins do.

    Args:
        place: The address of an index or of a page of links, or a directory of wheels.

    Raises:
        OstlerError: It cannot be read.
    """
    url = urlparse(place)
    if url.scheme in ("", "file"):
        names: Iterable[str] = _names_in_directory(Path(unquote(url.path)))
    elif url.scheme in ("http", "https"):
        names = _names_in_index(place)
    else:
        raise InvalidInput(f"{url.scheme} is not a kind of index: use https, http or file")
    found = {normalise_name(name) for name in names}
    return {name for name in found if name.startswith(PREFIX)}


def _names_in_directory(directory: Path) -> Iterator[str]:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise OstlerError(f"{directory} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        if entry.is_dir():
            yield entry.name
        elif entry.suffix == ".whl":
            yield wheel_name(entry.name)[0]
        elif entry.name.endswith(".tar.gz"):
            yield entry.name.removesuffix(".tar.gz").rpartition("-")[0]


def _names_in_index(address: str) -> list[str]:
    request = urllib.request.Request(f"{address.rstrip('/')}/", headers={"Accept": _ACCEPT})  # noqa: S310 - http or https
    try:
        with urllib.request.urlopen(request, timeout=_TIME_LIMIT) as answer:  # noqa: S310 - as above
            kind, body = answer.headers.get_content_type(), answer.read(_MAX_SIZE)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise OstlerError(f"the index {_without_password(address)} cannot be read: {error}") from error
    if kind.endswith("json"):
        return [project.name for project in msgspec.json.decode(body, type=_ProjectList).projects]
    return [unquote(link.decode(errors="replace")).rstrip("/").rpartition("/")[2] for link in _LINK.findall(body)]


def _without_password(address: str) -> str:
    url = urlparse(address)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
