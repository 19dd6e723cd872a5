"""Tables of runs that are shipped, by name."""
