# Serves a directory by HTTP/1.1; prints its port, then each request.
# Arguments: ADDRESS DIRECTORY [CERTIFICATE_AND_KEY]
import functools
import http.server
import socket
import socketserver
import ssl
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        print(f"{self.client_address[0]}:{self.client_address[1]} {self.requestline}", flush=True)

    def log_error(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    request_queue_size = 128

    # http.server's own asks the DNS for the name of the address.
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        pass


server = Server((sys.argv[1], 0), functools.partial(Handler, directory=sys.argv[2]))
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
