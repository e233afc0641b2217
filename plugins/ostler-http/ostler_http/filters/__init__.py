"""The bundled filters. They know the contracts of `application` and nothing of the server."""
