"""What travels, and the Protocols of what carries it: messages, the request, its context and its trace. No I/O.

Here: the envelope and its limits, the `Transport` Protocols, `CallRequest`, `Context`, the trace context. Not here:
sockets, methods, policy, and anything that knows who is allowed to do what.
"""
