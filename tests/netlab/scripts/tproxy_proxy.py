# A proxy for datagrams as TPROXY has them: tproxy_proxy.py PORT HOW
#
# It is told by IP_RECVORIGDSTADDR where a datagram was going, and answers from a socket for each client and destination, which it binds
# to that. HOW says what becomes of such a socket: it "sends" to the client, and is never read, or
# "connects" to it, and is read too.
import select
import socket
import sys

IP_TRANSPARENT, IP_RECVORIGDSTADDR = 19, 20
connects = sys.argv[2] == "connects"


def transparent(address):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    one.bind(address)
    assert one.getsockname() == address, one.getsockname()
    return one


def address_in(ancillary):
    name = ancillary[0][2]
    return (socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big"))


def voice(client, to):
    one = transparent(to)
    if connects:
        one.connect(client)
    return one


listener = transparent(("0.0.0.0", int(sys.argv[1])))
listener.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
print("listening", flush=True)
flows, upstream, voices = {}, {}, {}
while True:
    for ready in select.select([listener, *upstream, *(voices if connects else [])], [], [])[0]:
        if ready in upstream:
            client, to = upstream[ready]
            data = ready.recv(65535)
            try:
                known = next((one for one in voices if voices[one] == (client, to)), None) or voice(client, to)
            except OSError:
                print("again", file=sys.stderr, flush=True)
                known = voice(client, to)
            voices[known] = (client, to)
            if connects:
                known.send(data)
            else:
                known.sendto(data, client)
            continue
        if ready is listener:
            data, ancillary, _, client = listener.recvmsg(65535, 64)
            to = address_in(ancillary)
        else:
            data, (client, to) = ready.recv(65535), voices[ready]
        if (client, to) not in flows:
            flows[client, to] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            upstream[flows[client, to]] = (client, to)
        flows[client, to].sendto(data, to)
