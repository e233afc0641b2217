"""Messages: call, cast, fanout, publish and subscribe."""
