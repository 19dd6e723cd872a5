"""Seed sweeps on Ray: from a study file to a table that says which result can be trusted."""

__version__ = "0.1.0"
