"""Plugins of the Acme company for the mail gateway: one for each stage."""
