"""The control socket: what the commands of this machine's operators ask of a running gateway.

JSON over HTTP on a Unix socket that only the gateway's user can reach. `POST /<command>` with an object;
200 with an object, or 400 with `{"Message": ...}`. Each group of commands is a file of its own.
"""

from gateway.web.control.app import Command, CommandFailed, CommandGroup, ControlApp, Empty, Request

__all__ = ["Command", "CommandFailed", "CommandGroup", "ControlApp", "Empty", "Request"]
