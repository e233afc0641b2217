import socket

from ostler.messaging.tcp.sessions import TcpConnection


def test_a_connection_is_cut_by_its_descriptor_unless_it_is_another_ones_by_now():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        taken, _ = server.accept()
        with taken, socket.create_connection(server.getsockname()) as other:
            connection = TcpConnection(taken.fileno(), 0.0)
            assert connection.address == "127.0.0.1"
            far_end, connection.remote_address = connection.remote_address, other.getsockname()
            connection.shutdown()
            client.sendall(b"x")
            assert taken.recv(1) == b"x"
            connection.remote_address = far_end
            connection.shutdown()
            assert client.recv(1) == b""
        assert connection.read_counters() is None
    nothing = TcpConnection(10**6, 0.0)
    nothing.shutdown()
    assert (nothing.address, nothing.read_counters()) == ("", None)


def test_the_kernel_says_what_has_gone_over_a_connection_and_what_waits():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        taken, _ = server.accept()
        with taken:
            taken.setblocking(False)
            client.sendall(bytes(1000))
            connection = TcpConnection(taken.fileno(), 0.0)
            given = 0
            while True:  # until neither kernel takes more
                try:
                    given += taken.send(bytes(65536))
                except BlockingIOError:
                    break
            traffic = connection.read_counters()
            assert (traffic.received_bytes, traffic.sent_bytes) == (1000, given)
            assert 0 < traffic.unacked_bytes <= given
