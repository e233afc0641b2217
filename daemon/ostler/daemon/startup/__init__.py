"""What a start needs before its services: steps with time limits, directories, addresses that come up later.

Not here: the order of a start (`daemon`), and the start of a service (`ostler.service`).
"""
