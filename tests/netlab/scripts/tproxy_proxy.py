# A proxy for datagrams as TPROXY has them: tproxy_proxy.py PORT HOW [ipv6]
#
# It is told by IP_RECVORIGDSTADDR where a datagram was going, and answers from a socket for each client and destination, which it binds
# to that. HOW says what becomes of such a socket: it "sends" to the client, and is never read, or
# "connects" to it, and is read too.
import select
import socket
import sys

ipv6 = sys.argv[3:] == ["ipv6"]
family, level = (socket.AF_INET6, socket.IPPROTO_IPV6) if ipv6 else (socket.AF_INET, socket.SOL_IP)
transparency, told_by = (75, 74) if ipv6 else (19, 20)  # IPV6_TRANSPARENT, IPV6_RECVORIGDSTADDR and those of IPv4
connects = sys.argv[2] == "connects"


def transparent(address):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(level, transparency, 1)
    one.bind(address)
    assert one.getsockname()[:2] == address, one.getsockname()
    return one


def address_in(ancillary):
    name = ancillary[0][2]
    ip = name[8:24] if ipv6 else name[4:8]
    return (socket.inet_ntop(family, ip), int.from_bytes(name[2:4], "big"))


def voice(client, to):
    one = transparent(to)
    if connects:
        one.connect(client)
    return one


listener = transparent(("::" if ipv6 else "0.0.0.0", int(sys.argv[1])))
listener.setsockopt(level, told_by, 1)
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
            flows[client, to] = socket.socket(family, socket.SOCK_DGRAM)
            upstream[flows[client, to]] = (client, to)
        flows[client, to].sendto(data, to)
