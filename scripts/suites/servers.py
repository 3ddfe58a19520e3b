# Servers of every protocol that scripts/suites/client.py speaks, on the loopback, with one directory for all.
# Arguments: DIRECTORY. Prints one line of JSON: the port of each. They end with their standard input.
import asyncio
import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

directory = sys.argv[1]
here = "127.0.0.1"


def free(kind):
    with socket.socket(type=kind) as probe:
        probe.bind((here, 0))
        return probe.getsockname()[1]


def start(target, *arguments):
    threading.Thread(target=target, args=arguments, daemon=True).start()


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


def http1():
    handler = functools.partial(Quiet, directory=directory)
    server = http.server.ThreadingHTTPServer((here, 0), handler)
    start(server.serve_forever)
    return server.server_address[1]


def http2():
    port = free(socket.SOCK_STREAM)
    return port, subprocess.Popen(["nghttpd", "--no-tls", "-a", here, "-d", directory, str(port)])


def ftp():
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(directory, perm="elr")
    authorizer.add_user("user", "secret", directory, perm="elradfmw")
    FTPHandler.authorizer = authorizer
    server = FTPServer((here, 0), FTPHandler)
    start(server.serve_forever)
    return server.address[1]


def tftp_and_dns():
    dns = free(socket.SOCK_DGRAM)
    # TFTP has one port for all the world; the namespace is the suites' own.
    command = ["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]
    command += ["--bind-interfaces", "--listen-address=127.0.0.1", f"--port={dns}", "--log-facility=/dev/null"]
    command += ["--enable-tftp", f"--tftp-root={directory}", "--pid-file="]
    command += ["--address=/example.test/192.0.2.7", "--txt-record=long.example.test," + ",".join(["x" * 250] * 12)]
    return dns, subprocess.Popen(command)


class Files(QuicConnectionProtocol):
    """The name of a file, answered with what is in it."""

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived) and event.end_stream:
            with open(os.path.join(directory, event.data.decode()), "rb") as file:
                self._quic.send_stream_data(event.stream_id, file.read(), end_stream=True)
            self.transmit()


def quic(port):
    async def run():
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["file"])
        configuration.load_cert_chain(f"{directory}/certificate.pem", f"{directory}/key.pem")
        await serve(here, port, configuration=configuration, create_protocol=Files)
        await asyncio.Event().wait()

    asyncio.run(run())


quic_port = free(socket.SOCK_DGRAM)
start(quic, quic_port)
(http2_port, http2_server), (dns_port, dns_server) = http2(), tftp_and_dns()
ports = {"http1": http1(), "http2": http2_port, "ftp": ftp(), "dns": dns_port, "quic": quic_port, "closed": free(socket.SOCK_STREAM)}
print(json.dumps(ports), flush=True)
sys.stdin.read()
http2_server.kill()
dns_server.kill()
os._exit(0)
