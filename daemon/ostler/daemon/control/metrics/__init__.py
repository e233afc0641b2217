"""The metrics of the daemon itself, for `ostler metrics` and Prometheus: declared in `catalogue`, read by `collector`.

Imported when somebody asks for them. Nothing is counted here: what is read was counted where it happened.
"""
