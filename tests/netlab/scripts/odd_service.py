# A redirect service that leads connections on in an odd way. Argument: WAY
import os, select, signal, socket, struct, subprocess, sys

SOL_WAYLAY, QUERY_RECORDS, SET_RECORDS, QUERY_ORIGINAL_DST = 0x5759, 220, 222, 230


# From where the application reaches what is not on its own host.
OWN = {"10.77.0.2": "10.77.0.1", "fd00:77::2": "fd00:77::1"}


def destination(inbound):
    raw = inbound.getsockopt(SOL_WAYLAY, QUERY_ORIGINAL_DST, 28)
    ip = raw[4:8] if inbound.family == socket.AF_INET else raw[8:24]
    return socket.inet_ntop(inbound.family, ip), struct.unpack_from("!H", raw, 2)[0]


def dial(inbound, protocol=0, source=None):
    outbound = socket.socket(inbound.family, socket.SOCK_STREAM, protocol)
    outbound.setsockopt(SOL_WAYLAY, SET_RECORDS, inbound.getsockopt(SOL_WAYLAY, QUERY_RECORDS, 48))
    if source:
        outbound.bind((source, 0))
    outbound.connect(destination(inbound))
    return outbound


def relay(inbound, outbound):
    inbound.sendall(outbound.recv(5, socket.MSG_WAITALL))
    inbound.recv(1)


def by_a_child(inbound):
    child = os.fork()
    if child == 0:
        relay(inbound, dial(inbound))
        os._exit(0)
    os.waitpid(child, 0)


def by_multipath(inbound):
    relay(inbound, dial(inbound, protocol=262))


def from_the_source(inbound):
    host, _ = destination(inbound)
    relay(inbound, dial(inbound, source=OWN.get(host, host)))


def by_a_program(inbound):
    inbound.getsockopt(SOL_WAYLAY, QUERY_RECORDS, 48)
    host, port = destination(inbound)
    program = "import socket, sys; s = socket.create_connection((sys.argv[1], sys.argv[2])); print(s.recv(5, 256).decode(), end=str())"
    inbound.sendall(subprocess.run([sys.executable, "-c", program, host, str(port)], capture_output=True).stdout)
    inbound.recv(1)


names = os.environ["LISTEN_FDNAMES"].split(":")
listeners = [socket.socket(fileno=fd) for fd, name in enumerate(names, start=3) if name in ("tcp4", "tcp6")]
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    for ready in select.select(listeners, [], [])[0]:
        inbound, _ = ready.accept()
        globals()[sys.argv[1]](inbound)
        inbound.close()
