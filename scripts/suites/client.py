# Fetches and sends by every protocol of scripts/suites/servers.py, and writes what came of each, one a line:
# EXIT-STATUS-AND-DIGEST ID. Arguments: PORTS-AS-JSON RESULTS
import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived

ports, results = json.loads(sys.argv[1]), open(sys.argv[2], "w")
here = "127.0.0.1"
scratch = tempfile.mkdtemp()


def note(name, status, content):
    digest = hashlib.sha256(content).hexdigest()[:16]
    print(f"{status}:{len(content)}:{digest} {name}", file=results, flush=True)


def curl(name, *arguments):
    got = os.path.join(scratch, "got")
    open(got, "w").close()
    done = subprocess.run(["curl", "-sS", "--max-time", "60", "-o", got, *arguments], capture_output=True)
    note(name, done.returncode, open(got, "rb").read())
    if done.returncode:
        sys.stderr.write(f"{name}: {done.stderr.decode()}")


def dig(name, *arguments):
    command = ["dig", f"@{here}", "-p", str(ports["dns"]), "+short", "+tries=3", *arguments]
    done = subprocess.run(command, capture_output=True)
    note(name, done.returncode, done.stdout)


class Client(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.got += event.data
            if event.end_stream:
                self.done.set()


async def quic(file):
    configuration = QuicConfiguration(alpn_protocols=["file"], verify_mode=ssl.CERT_NONE, server_name="quic.test")
    async with connect(here, ports["quic"], configuration=configuration, create_protocol=Client) as client:
        client.got, client.done = b"", asyncio.Event()
        stream = client._quic.get_next_available_stream_id()
        client._quic.send_stream_data(stream, file.encode(), end_stream=True)
        client.transmit()
        await asyncio.wait_for(client.done.wait(), 60)
        return client.got


upload = os.path.join(scratch, "upload")
with open(upload, "wb") as file:
    file.write(bytes(range(256)) * 8192)

for size in "empty", "small", "large":
    for way, url in ("http1", "http"), ("http2", "http"), ("ftp", "ftp"):
        options = {"http2": ["--http2-prior-knowledge"]}.get(way, [])
        curl(f"{way}.get.{size}", *options, f"{url}://{here}:{ports[way]}/{size}")
    curl(f"ftp.active.{size}", "--ftp-port", here, f"ftp://{here}:{ports['ftp']}/{size}")
    curl(f"tftp.get.{size}", f"tftp://{here}/{size}")
    curl(f"tftp.blocks.{size}", "--tftp-blksize", "1400", f"tftp://{here}/{size}")
    note(f"quic.get.{size}", 0, asyncio.run(quic(size)))
curl("http1.put", "-T", upload, f"http://{here}:{ports['http1']}/upload")
curl("http1.missing", f"http://{here}:{ports['http1']}/nowhere", "-f")
curl("http1.ranges", "-r", "100-199", f"http://{here}:{ports['http1']}/small")
curl("http1.many", *[f"http://{here}:{ports['http1']}/small?{number}" for number in range(20)])
curl("http2.many", "--http2-prior-knowledge", *[f"http://{here}:{ports['http2']}/small?{number}" for number in range(20)])
curl("ftp.list", f"ftp://{here}:{ports['ftp']}/", "-l")
curl("ftp.extended", "--disable-epsv", f"ftp://{here}:{ports['ftp']}/small")
curl("ftp.active.old", "--ftp-port", here, "--disable-eprt", f"ftp://{here}:{ports['ftp']}/small")
curl("ftp.put", "-T", upload, f"ftp://user:secret@{here}:{ports['ftp']}/put")
curl("ftp.missing", f"ftp://{here}:{ports['ftp']}/nowhere")
curl("tftp.missing", f"tftp://{here}/nowhere")
curl("closed", f"http://{here}:{ports['closed']}/")
dig("dns.a", "example.test")
dig("dns.aaaa", "example.test", "AAAA")
dig("dns.tcp", "+tcp", "example.test")
dig("dns.truncated", "+bufsize=512", "long.example.test", "TXT")
dig("dns.missing", "nowhere.invalid")
for number in range(20):
    dig(f"dns.many.{number}", f"{number}.example.test")
