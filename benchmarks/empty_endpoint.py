"""The yardstick of `send`: an empty Quart-Trio endpoint on stock hypercorn-trio. `python -m ... PORT`"""

from __future__ import annotations

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.post("/")
async def empty() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.accesslog = None
    trio.run(serve, app, config)
