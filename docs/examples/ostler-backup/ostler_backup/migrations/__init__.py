"""The migrations of the tables, in order; each is forward only and must not change after its release."""
