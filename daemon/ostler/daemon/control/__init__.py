"""The topic `ostler`: the methods that operators call, and the status and metrics that they return.

`control_endpoint` has the methods, `service_control` those for services; `daemon_status`, `daemon_dump` and
`traffic_metrics` collect what is shown. Not here: the start, stop and reload that they ask for, and how results are
shown (`ostler.cli`).
"""
