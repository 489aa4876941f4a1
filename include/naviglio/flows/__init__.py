"""The use cases, one a file, each on one screen."""
