"""The data: each model knows how to write itself as JSON."""
