"""Several processes for one gateway (`workers = N`), on one machine and one data directory.

    supervisor ── lock of the data directory, sockets, migrations; starts a worker again that ended
    ├── worker 0 ── its roles, and alone: clean-up, expired leases, plugins' services, the `event` stage,
    │               the control socket, metrics
    └── worker 1, 2, ... ── their roles: SMTP, submission, web, deliveries, webhook calls; in general all

Each worker is a gateway as `gateway.app` makes it. They share the store and nothing else: leases keep two
from doing the same, and limits that are one process's are divided (`shares`). Hints (`hints`) tell a worker
that there may be something to do for it; polling makes up for any that is lost.
"""
