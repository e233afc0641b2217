"""The REST API: every exposed method, events, operations and the daemon's own status over HTTP.

    application   `ApiApplication`: options, routes, the way of a request
    routes        which handler serves a path, by dictionaries
    request       one request: headers, query, body within bounds, the client that leaves
    responses     what a handler returns, and how it is sent; ETags
    problems      errors as problem details (RFC 9457), a status for each error of Ostler
    frames        streams as server-sent events or as lines of JSON
    json_text     values as JSON, whatever msgpack can carry
    interfaces    what methods take and return, as the daemon describes it, kept for a moment
    schema_values values between JSON and messages, where their JSON Schema says that they differ
    methods, operations, events, resources, index   the handlers
    document, openapi…, page/   the description of all this, for programs and for people

Not here: who a caller is (the server), what it may do (the daemon's dispatcher).
"""
