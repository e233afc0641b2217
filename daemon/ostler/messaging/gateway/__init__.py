"""The way in for callers that come another way than by Ostler's sockets, such as over HTTP: `Gateway`.

It is one more transport: `links` has its two ends, `gateway` knows the callers, `gateway_client` makes their requests.
Not here: what the callers speak (a plugin's own), and where tokens are stored (`ostler.store.records`). Nothing of this
is imported before a manager asks for its `gateway`.
"""
