"""Studies as jobs of a Ray cluster elsewhere: what goes there, and what is heard of it."""
