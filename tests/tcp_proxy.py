"""
A network that misbehaves: a TCP proxy between a program and what it speaks to, in a thread of its own.

It passes bytes on until it is told to refuse connections, to swallow what is sent, to hold it back, to slow it down or
to cut each connection after so many bytes. What it cuts where comes from its seed.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading

from tests.server import free_port

PIECE = 65_536


class TcpProxy:
    """A way to ``127.0.0.1:target`` by another port; a context manager. Every method may be called from any thread."""

    def __init__(self, target, *, seed=0):
        self.target = target
        # Of the ports that the system gives to nobody: while it refuses, nobody else may listen there.
        self.port = free_port()
        self.chance = random.Random(seed)
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.cut = 0
        self.latency = 0.0
        self.swallows = False
        self._cuts_between = None

    # Faults ------------------------------------------------------------------------------------------------------

    def refuse(self):
        """Reset every connection and refuse new ones."""
        self._call(self._refuse())

    def swallow(self):
        """Accept connections, read what comes on them, and pass nothing on: a black hole."""
        self._call(self._swallow())

    def hold(self):
        """Keep what is sent until it is passed on again: a far end that is frozen."""
        self._call(self._hold())

    def slow_down(self, seconds):
        """Hold every piece back for so long."""
        self.latency = seconds

    def cut_between(self, least, most):
        """Reset each new connection after a random number of bytes from the far end; ``None`` ends it."""
        self._cuts_between = None if least is None else (least, most)

    def cut_all(self):
        """Reset every connection that there is now."""
        self._call(self._cut_all())

    def pass_on(self):
        """Be a good network again. Connections that lost bytes to a black hole are reset: they cannot go on."""
        self.latency, self._cuts_between = 0.0, None
        self._call(self._pass_on())

    refused = property(lambda self: self._while(self.refuse))
    black_holed = property(lambda self: self._while(self.swallow))
    frozen = property(lambda self: self._while(self.hold))

    @contextlib.contextmanager
    def _while(self, fault):
        fault()
        try:
            yield
        finally:
            self.pass_on()

    # Life --------------------------------------------------------------------------------------------------------

    def start(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="tcp proxy", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("The proxy did not start.")
        return self

    def stop(self):
        self._call(self._end())
        self._thread.join(10)

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _run(self, ready):
        async def main():
            self._loop = asyncio.get_running_loop()
            self._ended = asyncio.Event()
            self._open = asyncio.Event()
            self._open.set()
            self._server = None
            await self._listen()
            ready.set()
            await self._ended.wait()
            await self._refuse()
            await asyncio.sleep(0)

        asyncio.run(main())

    async def _end(self):
        self._ended.set()

    async def _listen(self):
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, backlog=1024, reuse_address=True
            )

    async def _refuse(self):
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut_all()

    async def _swallow(self):
        self.swallows = True

    async def _hold(self):
        self._open.clear()

    async def _cut_all(self):
        for connection in list(self.connections):
            connection.reset()

    async def _pass_on(self):
        self.swallows = False
        for connection in list(self.connections):
            if connection.has_lost:
                connection.reset()
        self._open.set()
        await self._listen()

    async def _accept(self, reader, writer):
        self.accepted += 1
        connection = Connection(self, writer)
        if self._cuts_between is not None:
            connection.left = self.chance.randint(*self._cuts_between)
        self.connections.add(connection)
        try:
            await connection.run(reader)
        finally:
            self.connections.discard(connection)


class Connection:
    """Both ends of one connection, and what is passed between them."""

    def __init__(self, proxy, near):
        self.proxy, self.near, self.far = proxy, near, None
        self.has_lost = False
        self.left = None  # how many bytes of the far end may still pass

    async def run(self, reader):
        try:
            if self.proxy.swallows:
                # Nobody at the far end learns of it.
                self.has_lost = True
                while await reader.read(PIECE):
                    pass
                return
            far_reader, self.far = await asyncio.open_connection("127.0.0.1", self.proxy.target)
            ways = [
                asyncio.create_task(self._pass(reader, self.far)),
                asyncio.create_task(self._pass(far_reader, self.near, counted=True)),
            ]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
        except OSError:
            pass
        finally:
            self.reset() if self.has_lost else self._close()

    async def _pass(self, reader, writer, *, counted=False):
        while data := await reader.read(PIECE):
            await self.proxy._open.wait()
            if self.proxy.latency:
                await asyncio.sleep(self.proxy.latency)
            if self.proxy.swallows:
                self.has_lost = True
                continue
            if counted and self.left is not None:
                if len(data) >= self.left:
                    # The far end learns of it at once; what was passed on is to arrive here before the reset does.
                    self.far.transport.abort()
                    writer.write(data[: self.left])
                    await asyncio.sleep(0.01)
                    self.proxy.cut += 1
                    self.reset()
                    raise ConnectionResetError
                self.left -= len(data)
            writer.write(data)
            await writer.drain()
        if not self.has_lost and writer.can_write_eof():
            writer.write_eof()

    def _close(self):
        for writer in (self.near, self.far):
            if writer is not None:
                writer.close()

    def reset(self):
        """End both sides with a TCP reset."""
        for writer in (self.near, self.far):
            if writer is not None and not writer.transport.is_closing():
                ends = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    ends.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
