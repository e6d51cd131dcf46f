"""Gives the proxy's socket a port of the sandbox's own loopback: every connection is passed on, byte by byte."""

import asyncio
import os
import sys

SOCKET, PORT = sys.argv[1], int(sys.argv[2])


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        # The other direction may still have something to say.
        writer.write_eof()
    except OSError:
        writer.close()


async def connection(reader, writer):
    try:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(SOCKET)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))
    for end in (writer, upstream_writer):
        end.close()


async def main():
    server = await asyncio.start_server(connection, "127.0.0.1", PORT)
    print("ready", os.getpid(), flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
