"""A recording of any length to windows that a model takes in one piece, in memory that does not grow with it."""
