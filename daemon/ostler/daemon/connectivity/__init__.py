"""The daemon's sockets, ports, links to peers, event journal, access policy and audit service.

`messaging_stack` puts the parts of `ostler.messaging` together for the daemon. Not here: protocols, dispatching and
routing themselves (`ostler.messaging`), and methods of the topic `ostler` (`control`).
"""
