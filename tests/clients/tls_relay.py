"""Ends TLS in front of a gateway, as a reverse proxy would: CERTIFICATE and KEY are files, PORT listens, TARGET is behind."""

import asyncio
import os
import ssl

PORT, (HOST, TARGET) = int(os.environ["PORT"]), os.environ["TARGET"].split(":")
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(os.environ["CERTIFICATE"], os.environ["KEY"])


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def take(reader, writer):
    behind, before = await asyncio.open_connection(HOST, int(TARGET))
    await asyncio.gather(carry(reader, before), carry(behind, writer))


async def main():
    server = await asyncio.start_server(take, "127.0.0.1", PORT, ssl=tls)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
