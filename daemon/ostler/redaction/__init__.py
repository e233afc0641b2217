"""Redaction by value: the secrets that this process knows, and their removal from every text that leaves it.

`secret_values` has the secrets and the functions that remove them, `spellings` the spellings of a secret that are
searched for, `matcher` finds all of them in a text in one pass, `escapes` undoes escapes, `token_shape` knows tokens of
Ostler. Not here: names of fields
that look secret (`ostler.log.masking`).
"""

from ostler.redaction.secret_values import MAX_VALUES_PER_REQUEST, SECRETS, TOO_MANY_MASK, SecretValues, redact
from ostler.redaction.spellings import MASK, MIN_SECRET_LENGTH, Value, spellings_of
from ostler.redaction.token_shape import TOKEN_MARK

__all__ = [
    "MASK",
    "MAX_VALUES_PER_REQUEST",
    "MIN_SECRET_LENGTH",
    "SECRETS",
    "TOKEN_MARK",
    "TOO_MANY_MASK",
    "SecretValues",
    "Value",
    "redact",
    "spellings_of",
]
