"""SMTP without I/O: bytes in, events out. Imports nothing else of the gateway.

`server.SmtpServer` and `client.SmtpClient` are the two machines; `addresses`, `replies`, `commands` and
`data` are what they speak; `results` is what the client says in the end. The drivers are in `gateway.net`.
"""
