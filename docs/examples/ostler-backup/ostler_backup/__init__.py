"""A plugin of Ostler: backup."""
