"""The audit log and OpenTelemetry: they implement the observer Protocols of `rpc`, which does not import them.

Not here: the tables of the audit log (`ostler.store.records`), and decisions about requests.
"""
