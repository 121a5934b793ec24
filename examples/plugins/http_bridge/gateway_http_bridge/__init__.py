"""Asks a service over HTTP at each stage of a message, in the shape of draft-degennaro-mta-hooks-02.

The gateway describes what it is about to do as a JSON object (`describe`). The service answers with a JSON
Patch (RFC 6902) that changes the description, and the gateway acts on what comes out (`answers`). So every
stage is the same three steps: describe, ask, act; only the second does any I/O (`plugin`). README.md says
what part of the draft this is.
"""

from gateway_http_bridge.plugin import BridgeSettings, HttpBridge

__all__ = ["BridgeSettings", "HttpBridge"]
