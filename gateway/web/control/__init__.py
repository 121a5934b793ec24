"""The control socket: what the commands of this machine's operators ask of a running gateway.

JSON over HTTP on a Unix socket that only the gateway's user can reach. `POST /<command>` with an object;
200 with an object, or 400 with `{"Message": ...}`.

Each group of commands is a file here, and one in `gateway.cli`; `gateway.app` hands the groups to the
application. What chooses messages and calls is in `filters`.
"""
