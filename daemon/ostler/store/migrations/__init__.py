"""The migrations of the core tables, in order; each goes forward only and never changes after it was released.

Not here: running them (`ostler.store.migrate`), and the models of today (`ostler.store.models`).
"""
