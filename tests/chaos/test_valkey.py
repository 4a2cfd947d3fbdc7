"""The task that asks Valkey outlives whatever becomes of its connection."""

import asyncio
import contextlib

import uvloop

from bench.chaos.world import Valkey
from gateway.shared_rates import SharedRates
from tests.tcp_proxy import TcpProxy


def test_a_connection_that_is_reset_in_the_middle_of_a_command_ends_nothing():
    async def go(proxy):
        shared = SharedRates(f"redis://127.0.0.1:{proxy.port}/0", "one", "test:")
        await shared.start()
        for _ in range(3):
            for fault in (proxy.refuse, proxy.pass_on):
                await asyncio.to_thread(fault)
                # Of each beat one may find the connection closed, and one the port.
                for _ in range(8):
                    await asyncio.sleep(0.03)
                    shared._wake.set()
        for _ in range(100):
            if not shared.is_up:
                await asyncio.sleep(0.05)
        assert shared.is_up
        with contextlib.suppress(OSError):
            await shared.stop()

    # The server's own event loop: it closes connections in a way of its own.
    with Valkey() as valkey, TcpProxy(valkey.port) as proxy:
        uvloop.run(go(proxy))
