"""A scheduler: keeps capabilities, filters and weighs, and explains its choice."""
