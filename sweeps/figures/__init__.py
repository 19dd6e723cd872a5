"""Pictures: pure functions from tables and arrays to matplotlib figures, without global state."""
