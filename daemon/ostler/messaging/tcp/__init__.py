"""Messages over TCP between hosts, by libzmq and always with CURVE. Imported only when a network is configured.

`authenticator` decides who may connect, `server` and `publisher` are the daemon's ends, `sync_link` and `async_link`
the clients'. Bytes only, as in `unix`.
"""
