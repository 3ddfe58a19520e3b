# Answers datagrams on three ports of an address. The first two send each back; the third answers from a port of its
# own, as TFTP servers do, and sends back there what follows. A question to the DNS is answered, too.
import selectors, socket, struct, sys

host = sys.argv[1]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
selector = selectors.DefaultSelector()


def bind():
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    bound.bind((host, 0))
    return bound


def echo(bound):
    datagram, peer = bound.recvfrom(70000)
    bound.sendto(datagram, peer)


def elsewhere(bound):
    datagram, peer = bound.recvfrom(70000)
    other = bind()
    selector.register(other, selectors.EVENT_READ, echo)
    other.sendto(b"from elsewhere: " + datagram, peer)


def resolve(bound):
    question, peer = bound.recvfrom(70000)
    flags = 0x8180 if b"example" in question else 0x8183
    answer = struct.pack(">HHHHHH", struct.unpack(">H", question[:2])[0], flags, 1, 0, 0, 0) + question[12:]
    bound.sendto(answer, peer)


for handler in (echo, echo, elsewhere, resolve):
    bound = bind()
    selector.register(bound, selectors.EVENT_READ, handler)
    print(bound.getsockname()[1], flush=True)
while True:
    for key, _ in selector.select():
        try:
            key.data(key.fileobj)
        except OSError:
            pass  # An ICMP error about somebody who has left.
