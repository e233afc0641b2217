"""Redaction by value: the secrets that this process knows, and their removal from every text that leaves it.

`values` has the secrets and the functions that take them out, `forms` the spellings of a secret that are looked for,
`matcher` finds all of them in a text at once.
"""

from ostler.redaction.forms import MASK, SHORTEST, Value, forms_of
from ostler.redaction.values import MOST_OF_REQUEST, SECRETS, TOO_MANY, SecretValues, redact

__all__ = ["MASK", "MOST_OF_REQUEST", "SECRETS", "SHORTEST", "TOO_MANY", "SecretValues", "Value", "forms_of", "redact"]
