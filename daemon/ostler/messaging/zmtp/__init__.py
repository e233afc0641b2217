"""Calls and events over unix sockets: the protocol of ZeroMQ (ZMTP 3.1), spoken by ourselves.

libzmq gives each message to a thread of its own and back: four times for one call, and each time a core has to be
woken. On a unix socket, where nothing has to be reconnected, encrypted or routed, those wake-ups are most of what a
short call costs; here the loop reads and writes the sockets itself. What goes over the wire is the same, so that a
DEALER or SUB of any ZeroMQ library can be a client. Networks stay with libzmq (`zmq`).

`talk` is the protocol without I/O, `channel` a socket on the loop, `listener` lets clients in, `server`, `events`,
`loop` and `blocking` are the four ends.
`blocking` imports no asyncio: the command starts with it.
"""
