"""Other hosts, from inside the sandbox: the unit listens, and connects, with its key as a credential."""

import json
from collections.abc import Iterator

import pytest
from installation import CONFIGURATION
from ostler_unit import Unit
from systemd_container import SystemdContainer

SECRET = "/etc/ostler/secrets/network-key"
CREDENTIAL = f"[Service]\nLoadCredential=network-key:{SECRET}\n"
# The example of docs/systemd.md.
ONE_NETWORK = "[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost 10.0.0.0/8\n"
OTHER = "/opt/node2"
HERE, THERE = "tcp://127.0.0.1:7890", "tcp://127.0.0.1:7990"


def public_key(machine: SystemdContainer, file: str) -> str:
    return machine.run("ostler", "keys", "show", file).stdout.splitlines()[0]


def new_key(machine: SystemdContainer, file: str) -> str:
    machine.run("sh", "-c", f"install -d -m 700 $(dirname {file}) && umask 077 && ostler keys new --print > {file}")
    return public_key(machine, file)


def network(host: str, address: str, key: str, peer: str, peer_address: str, peer_key: str) -> str:
    return f"""
[network]
rpc = "{address}"
secret_key = {key}
[network.keys]
{peer} = '{peer_key}'
[network.peers.{peer}]
rpc = "{peer_address}"
[access]
operator = ["key:{peer}"]
[access.methods]
"scheduler.update_capabilities" = "operator"
""" + CONFIGURATION.replace("[daemon]", f'[daemon]\nhost = "{host}"')


@pytest.fixture
def two(unit: Unit) -> Iterator[Unit]:
    """The unit as `node1`, and `node2`: a second daemon in the same container, outside the sandbox."""
    machine = unit.machine
    here, there = new_key(machine, SECRET), new_key(machine, f"{OTHER}/etc/network.key")
    unit.configure(network("node1", HERE, '{credential = "network-key"}', "node2", THERE, there))
    text = network("node2", THERE, f'{{file = "{OTHER}/etc/network.key"}}', "node1", HERE, here)
    machine.write(f"{OTHER}/etc/ostler.toml", text.replace("/var/lib/ostler", OTHER))
    machine.run("ostler", "--root", OTHER, "check")
    unit.add(CREDENTIAL, ONE_NETWORK)
    machine.run("systemd-run", "--unit=node2", "--property=Type=notify", "/usr/bin/ostler", "--root", OTHER, "run")
    unit.start()
    yield unit
    machine.run("systemctl", "kill", "-s", "KILL", "node2.service", check=False)
    machine.run("systemctl", "stop", "node2.service", check=False)
    machine.run("systemctl", "reset-failed", "node2.service", check=False)
    machine.run("rm", "-rf", OTHER, SECRET)


def test_the_unit_listens_for_other_hosts_with_a_key_that_is_a_credential(two: Unit) -> None:
    assert two.status()["network"] == HERE
    known = ("--server-key", public_key(two.machine, SECRET))
    there = ("--address", HERE, *known, "--secret-key", f"{OTHER}/etc/network.key")
    assert json.loads(two.ostler(*there, "status", "--json").stdout)["host"] == "node1"


def test_the_unit_reaches_other_hosts_by_address_and_the_other_way_round(two: Unit) -> None:
    two.await_entry(lambda entry: str(entry.get("MESSAGE")).startswith("connected to node2"))
    two.ostler("call", "volume", "create_volume", "--host", "node2", "name=there", "size=1MiB")
    assert "\nthere " in two.ostler("--root", OTHER, "volume", "list").stdout
    assert "\nthere@node2 " in two.ostler("volume", "list").stdout
    two.ostler("--root", OTHER, "call", "volume", "create_volume", "--host", "node1", "name=here", "size=1MiB")
    assert "\nhere " in two.ostler("volume", "list").stdout
    assert "\nhere@node1 " in two.ostler("--root", OTHER, "volume", "list").stdout
