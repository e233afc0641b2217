"""Hosts for the functional tests: daemons that know each other, in network namespaces or all on 127.0.0.1."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from daemon_process import DaemonProcess

from ostler import Client
from ostler.messaging.tcp.curve import KeyPair, generate_keys

_numbers = itertools.count(1)


def no_namespaces() -> str:
    """Return why there can be no hosts in network namespaces; empty when there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "needs `ip` and `tc` of iproute2"
    tried = subprocess.run(["ip", "netns", "add", name := f"ost-try-{os.getpid()}"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces here: {tried.stderr.decode()}" if tried.returncode else ""


class NamespaceNetwork:
    """A bridge in a namespace of its own, with a cable to the namespace of each host."""

    def __init__(self) -> None:
        self.tag = f"ost{os.getpid() % 10000}-{next(_numbers)}"
        self.hosts: dict[str, str] = {}
        self._spaces: list[str] = []
        self._space("br")
        self._run("ip", "-n", f"{self.tag}-br", "link", "add", "br0", "type", "bridge")
        self._run("ip", "-n", f"{self.tag}-br", "link", "set", "br0", "up")

    def add(self, host: str) -> list[str]:
        """Make a namespace with a cable to the bridge; return the words that run a command there."""
        number = len(self.hosts) + 1
        space, bridge = self._space(host), f"{self.tag}-br"
        self.hosts[host] = f"10.213.7.{number}"
        self._run(
            "ip", "-n", bridge, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", space
        )
        self._run("ip", "-n", bridge, "link", "set", f"p{number}", "master", "br0", "up")
        self._run("ip", "-n", space, "addr", "add", f"{self.hosts[host]}/24", "dev", "eth0")
        self._run("ip", "-n", space, "link", "set", "eth0", "up")
        self._run("ip", "-n", space, "link", "set", "lo", "up")
        return ["ip", "netns", "exec", space]

    def disconnect(self, host: str) -> None:
        """Pull the cable of a host, at the bridge."""
        self._run("ip", "-n", f"{self.tag}-br", "link", "set", self._port(host), "down")

    def reconnect(self, host: str) -> None:
        """Put it back."""
        self._run("ip", "-n", f"{self.tag}-br", "link", "set", self._port(host), "up")

    def drop_packets(self, host: str, other: str) -> None:
        """Have all that a host sends to another vanish, while what comes the other way arrives: half-open."""
        self._run("ip", "-n", f"{self.tag}-{host}", "route", "add", "blackhole", f"{self.hosts[other]}/32")

    def limit_bandwidth(self, host: str) -> None:
        """Have what a host sends go through slowly, in a queue of a few packets: the rest is lost."""
        words = "tbf rate 512kbit burst 3000 limit 4500"
        self._run("tc", "-n", f"{self.tag}-{host}", "qdisc", "add", "dev", "eth0", "root", *words.split())

    def lost(self, host: str) -> int:
        """Return how many packets of a host were lost since its cable is narrow."""
        show = ["tc", "-n", f"{self.tag}-{host}", "-s", "qdisc", "show", "dev", "eth0"]
        text = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        return int(text.partition("dropped ")[2].partition(",")[0])

    def close(self) -> None:
        """Take all of it away."""
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def _port(self, host: str) -> str:
        return f"p{[*self.hosts].index(host) + 1}"

    def _space(self, name: str) -> str:
        self._spaces.append(f"{self.tag}-{name}")
        self._run("ip", "netns", "add", self._spaces[-1])
        return self._spaces[-1]

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


class HostProcess:
    """One daemon among others."""

    def __init__(self, name: str, daemon: DaemonProcess, address: str, keys: KeyPair, before: list[str]) -> None:
        self.name = name
        self.daemon = daemon
        self.address = address
        self.keys = keys
        self.before = before

    def start(self) -> None:
        """Start the daemon, on its host, perhaps not for the first time."""
        seen = len(self.daemon.notices.received)
        self.daemon.start(before=self.before, wait=False)
        self.daemon.wait_ready(after=seen)

    def client(self, keys: KeyPair, **options: object) -> Client:
        """Return a client with a key, which reaches the daemon over the network."""
        return Client(self.address, server_key=self.keys.public, secret_key=keys.secret, timeout=20, **options)


class HostProcesses:
    """Daemons that know each other, each with a service of the topics it is given.

    Args:
        make_daemon: Makes a daemon.
        cables: What joins them; None for 127.0.0.1.
    """

    def __init__(self, make_daemon: Callable[..., DaemonProcess], cables: NamespaceNetwork | None = None) -> None:
        self.network = cables
        self.all: dict[str, HostProcess] = {}
        self.operator, self.unauthorised_keys = generate_keys(), generate_keys()
        self._make = make_daemon

    def __getitem__(self, name: str) -> HostProcess:
        return self.all[name]

    def start(self, **topics: str) -> None:
        """Start a daemon for each name, with the topics given (separated by blanks)."""
        for name in topics:
            before = self.network.add(name) if self.network is not None else []
            at = self.network.hosts[name] if self.network is not None else "127.0.0.1"
            port = 7890 if self.network is not None else free_ports()
            self.all[name] = HostProcess(name, self._make(), f"tcp://{at}:{port}", generate_keys(), before)
        for name, names in topics.items():
            self.configure(name, names)
        for name in topics:
            self[name].start()

    def configure(self, name: str, topics: str, *, known: dict[str, KeyPair] | None = None, more: str = "") -> None:
        """Write the configuration of a host, and its secret key."""
        host = self[name]
        file = host.daemon.root / "key"
        file.write_text(host.keys.secret + "\n")
        file.chmod(0o600)
        host.daemon.configure(self.text(host, topics, known, file) + more)

    def text(self, host: HostProcess, topics: str, known: dict[str, KeyPair] | None, file: Path) -> str:
        """Return the configuration of a host; `known` are the clients it knows."""
        clients = {"operator": self.operator} if known is None else known
        keys = {**{name: other.keys for name, other in self.all.items()}, **clients}
        lines = [
            "[daemon]", f'host = "{host.name}"',
            "[network]", f'rpc = "{host.address}"', f'secret_key = {{file = "{file}"}}',
            "heartbeat = 0.4", "heartbeat_timeout = 2", "poll_interval = 0.5",
            "[network.keys]", *(f"{name} = '{key.public}'" for name, key in keys.items()),
            "[messaging]", "keepalive_interval = 0.5",
            "[access]", f"operator = {[f'key:{name}' for name in keys]}",
        ]  # fmt: skip
        for name, other in self.all.items():
            if name != host.name:
                lines += [f"[network.peers.{name}]", f'rpc = "{other.address}"']
        for topic in topics.split():
            lines += [
                f"[services.{topic}]",
                'manager = "remote_calls_manager:RemoteCallsManager"',
                "report_interval = 1",
            ]
        return "\n".join(lines) + "\n"


def free_ports() -> int:
    """Return the first of two neighbouring ports that are free."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
