"""What `compare` and `idle` share. Python's standard library only."""
