"""What a start needs before its services: steps with time limits, the database, directories, addresses.

Not here: the order of a start (`daemon`), and the start of a service (`ostler.service`).
"""
