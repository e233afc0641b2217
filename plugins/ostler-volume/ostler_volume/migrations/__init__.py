"""The migrations of the volume tables, in order; each goes forward only and never changes once it was released."""
