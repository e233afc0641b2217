"""Who is at the other end of a connection."""

from __future__ import annotations

import os
import socket

import pytest

from ostler_http.server.peers import certificate_name, client_of, peer_of


def test_the_kernel_says_who_is_at_the_other_end_of_a_unix_socket():
    one, other = socket.socketpair()
    with one, other:
        peer = peer_of(one)
    assert (peer.kind, peer.client, peer.pid) == ("unix", f"uid {os.getuid()}", os.getpid())


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_hosts_with_many_addresses_are_bounded_by_their_network(address, client):
    assert client_of(address) == client


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, ""),
        ({}, ""),
        ({"subject": ((("organizationName", "x"),), (("commonName", "alice"),))}, "alice"),
        ({"subject": (), "subjectAltName": (("DNS", "a.example"), ("URI", "b:c"))}, "a.example"),
        ({"subject": ((("commonName", ""),),), "subjectAltName": (("URI", "b:c"),)}, "b:c"),
    ],
)
def test_a_certificate_is_called_by_its_common_name_or_its_first_other_name(certificate, name):
    assert certificate_name(certificate) == name
