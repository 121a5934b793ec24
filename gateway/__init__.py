"""A plugin-based mail gateway."""

__version__ = "0.1.0"
