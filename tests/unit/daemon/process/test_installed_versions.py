"""Whether what runs is still what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ostler
from ostler.daemon.process.installed_versions import InstalledVersions
from ostler.plugins import DiscoveredPlugin, PluginHost, in_memory_plugin


def install(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_version_that_was_installed_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    install(tmp_path, "lamp", "1.0")
    host = PluginHost([in_memory_plugin("lamp", object())._replace(distribution="lamp", version="1.0")])
    host.discover()
    versions = InstalledVersions(host)
    assert versions.newer_on_disk() == []
    install(tmp_path, "lamp", "1.1")
    install(tmp_path, "ostler", "99")
    assert versions.newer_on_disk() == [
        f"ostler {ostler.__version__} is running, 99 is installed: restart the daemon to use it",
        "plugin lamp 1.0 is running, 1.1 is installed: restart the daemon to apply that",
    ]


def test_a_plugin_that_a_reload_has_loaded_and_that_is_gone_again_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found: list[DiscoveredPlugin] = []
    host = PluginHost(found)
    host.discover()
    versions = InstalledVersions(host)
    found.append(in_memory_plugin("lamp", object())._replace(distribution="lamp", version="1.0"))
    host.refresh([], [])  # and nobody asks while it is installed
    assert versions.newer_on_disk() == [
        "plugin lamp 1.0 is running, it is no longer installed: restart the daemon to apply that"
    ]
