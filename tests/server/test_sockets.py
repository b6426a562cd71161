"""Sockets as a server listens at them."""

import asyncio
import socket

from mlx_stella.server.sockets import listen


def test_small_answers_are_sent_at_once():
    """Nagle's algorithm is off for each connection: else an answer waits for an acknowledgement."""

    async def no_delay(listening: socket.socket) -> int:
        found = asyncio.get_running_loop().create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                taken = transport.get_extra_info("socket")
                found.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        server = await asyncio.get_running_loop().create_server(Server, sock=listening)
        async with server:
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            try:
                return await found
            finally:
                writer.close()

    for made in listen("localhost", 0):
        assert asyncio.run(no_delay(made))
