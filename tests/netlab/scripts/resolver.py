"""A resolver for a few names, at several addresses, and a server at port 80 of all of them."""
import ipaddress, json, socket, struct, sys, threading

resolvers, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    question, kind = query[12 : at + 5], query[at + 2]
    records = []
    owner = b"\xc0\x0c"
    for value in names.get(".".join(labels), []):
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            owner = wire(value)
            records.append(b"\xc0\x0c\0\x05\0\x01\0\0\0\x05" + struct.pack("!H", len(owner)) + owner)
            continue
        if kind == {4: 1, 6: 28}[address.version]:
            data = address.packed
            records.append(owner + struct.pack("!HHIH", kind, 1, 5, len(data)) + data)
    return query[:2] + struct.pack("!5H", 0x8180, 1, len(records), 0, 0) + question + b"".join(records)


def resolve(s):
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(answer(query), peer)


def serve(s):
    while True:
        stream, _ = s.accept()
        try:
            stream.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nhi\n")
            stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # some clients leave early


def start(family, kind, address, run):
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(address)
    if kind == socket.SOCK_STREAM:
        s.listen(64)
    threading.Thread(target=run, args=(s,), daemon=True).start()


for resolver in resolvers:
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    start(family, socket.SOCK_DGRAM, (resolver, 53), resolve)
start(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 80), serve)
start(socket.AF_INET6, socket.SOCK_STREAM, ("::", 80), serve)
print("ready", flush=True)
threading.Event().wait()
