"""The study folder itself: its files, their seals, damage, the lock, and what was left there."""
