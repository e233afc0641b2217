"""Calls, casts and fanouts: what stands behind a topic, and what a client keeps of the calls it has made.

`signature` and `endpoint` know the methods, `dispatcher` decides, `call` is one request under way, `server` joins them
to a transport; `core` is the client without I/O. Nothing here knows which transport carries the messages.
"""
