"""Who may do what: roles of peers, overrides of the operator, groups of users, redaction of arguments.

Not here: requests under way, and what happens to one that is refused (`rpc`).
"""
