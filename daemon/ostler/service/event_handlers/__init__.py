"""Calls methods of managers with events: `event_handlers.py` has all of a host, `handler.py` is one of them.

Where events come from is `event_sources.py`: this daemon, or another one. Imported when a manager has a handler.
"""
