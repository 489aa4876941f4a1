"""Use cases, one a file: each composes rooms, none does their work."""
