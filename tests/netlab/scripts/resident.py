# A transparent proxy that runs already, as far as waylay is concerned:
#
#   resident.py PORT DIRECT_HOST DIRECT_PORT [name|elsewhere]
#
# It asks SO_ORIGINAL_DST where a connection was going. Who has found it by himself is led to DIRECT. `name`: it goes by the
# name of its socket, which is its own listener's; `elsewhere`: it dials 127.0.0.1 in any case, at the destination's port.
# It says a line for each connection that it has dialled or failed to.
import errno
import socket
import sys
import threading

SO_ORIGINAL_DST = 80


def destination(client):
    if "name" in sys.argv[4:]:
        return client.getsockname()
    try:
        raw = client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return sys.argv[2], int(sys.argv[3])
    host = "127.0.0.1" if "elsewhere" in sys.argv[4:] else socket.inet_ntoa(raw[4:8])
    return host, int.from_bytes(raw[2:4], "big")


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client):
    with client:
        host, port = destination(client)
        try:
            server = socket.create_connection((host, port), timeout=60)
        except OSError as error:
            print(f"{host}:{port} {errno.errorcode.get(error.errno, error)}", flush=True)
            return
        print(f"{host}:{port} ok", flush=True)
        with server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
