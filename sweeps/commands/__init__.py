"""What each command does: it calls a room, prints what that says, and returns the exit code."""

OK, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130
