"""Reports of what a service can do: collected from managers and drivers, stored, delivered to schedulers.

Not here: choosing a backend by them (that is a scheduler's), and their table (`ostler.store.records`).
"""
