"""What can be said of a trained member once, at the end; training itself imports `collapse` alone.

Pure functions from arrays, and from what encodes and decodes, to named numbers.
"""
