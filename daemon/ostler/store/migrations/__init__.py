"""The migrations of the core tables, in order; each goes forward only and never changes once it was released."""
