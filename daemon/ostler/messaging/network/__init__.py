"""Other hosts: links to peer daemons, routing of a request to the host that serves it, relaying for local callers.

Not here: sockets and keys (`tcp`), and what the daemon stores of the services of its peers
(`ostler.daemon.connectivity`).
"""
