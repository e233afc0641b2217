"""The client side of calls: one core without I/O, and a sync client, an async client and a local client in the daemon.

The three have the same file names (`sync_…`, `async_…`, `local_…`); `call_methods` has what all of them can do, and
`retry` decides whether a request is sent again. Not here: other hosts; the local client gets what brings requests
there, a `RequestRouter` (`network.routing`).
"""
