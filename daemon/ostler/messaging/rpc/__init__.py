"""The server side of calls, casts, fanouts and streams.

`rpc_server` joins a transport to the `dispatcher`, which decides; `topic_registry` and `endpoint` know what can be
called, `call` is one request in progress, `dedup` recognises retries, `server_streams` sends items, `completion`
counts and reports ends. Not here: which transport carries the messages, and clients (`clients`).
"""
