"""Studies that are shipped, by name."""
