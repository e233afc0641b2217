"""The application `health`: `/livez`, `/readyz` and `/startupz`. It knows the contracts of `application` only."""
