"""Asks mail filters that speak the milter protocol, version 6, as Sendmail and Postfix do.

`protocol` makes and reads frames, `edits` holds a message that a filter changes; neither does any I/O.
`conversation` talks to a filter about one message, `plugin` has the gateway's stages.
"""

from gateway_milter.plugin import Milter, MilterSettings

__all__ = ["Milter", "MilterSettings"]
