"""Calls and events over unix sockets: the protocol of ZeroMQ (ZMTP 3.1) in our own implementation.

libzmq hands each message to a thread of its own and back: four wake-ups for one call. On a unix socket, where nothing
has to be reconnected, encrypted or routed, those are most of what a short call costs; here the loop reads and writes
the sockets itself. The bytes are the same, so that a DEALER or SUB of any ZeroMQ library can be a client.

`protocol` does no I/O, `socket_stream` is a socket on the loop, `listener` accepts clients; `server`, `publisher`,
`async_link` and `sync_link` are the four ends. `sync_link` imports no asyncio: the command starts with it. Not here:
what the bytes of a message mean.
"""
