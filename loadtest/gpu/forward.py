#!/usr/bin/env python3
"""TCP from one address to another: `forward.py FROM TO [FROM TO...]`, each HOST:PORT.

vLLM publishes its events at one port on every address of a machine, so servers that share a machine need
different ports; llm-d's Endpoint Picker wants the same port of every pod.
"""

import asyncio
import sys


def parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def forward(here: str, there: str) -> None:
    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*parted(there))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(taken, *parted(here))
    await server.serve_forever()


async def main() -> None:
    words = sys.argv[1:]
    await asyncio.gather(*(forward(here, there) for here, there in zip(words[::2], words[1::2], strict=True)))


if __name__ == "__main__":
    asyncio.run(main())
