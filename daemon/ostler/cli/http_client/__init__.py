"""The command over HTTP: `--address https://HOST:PORT/v1`, the REST API that `ostler-http` serves.

`address` reads the options, `connection` carries one request after another within bounds of time and size, `problems`
makes errors of responses, `decoding` reads JSON, `client` has the call methods of every client on top of these, and
`event_stream` the events. Nothing of it is imported for a daemon that is reached over a socket.
"""
