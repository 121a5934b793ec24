"""`python -m gateway` is the command `gateway`."""

from gateway_command import main

main("gateway")
