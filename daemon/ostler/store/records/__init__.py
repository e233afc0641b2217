"""What is stored, one module for each kind: services, capabilities, audit log, journal of events, periodic runs.

Not here: connections, transactions and files; a record is read and written in the session of the store.
"""
