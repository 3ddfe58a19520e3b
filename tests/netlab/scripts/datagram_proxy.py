# A transparent proxy for datagrams: datagram_proxy.py PORT
#
# What arrives it sends on, from a socket for each client that is not connected, to the address that the datagram was for. What
# comes back it hands on as if it were whoever has sent it, as those do that speak for several.
import select
import socket
import struct
import sys

IP_PKTINFO = 8

listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.setsockopt(socket.SOL_IP, IP_PKTINFO, 1)
clients, upstream = {}, {}
while True:
    for ready in select.select([listener, *clients], [], [])[0]:
        if ready is listener:
            data, ancillary, _, client = listener.recvmsg(65535, 64)
            to = (socket.inet_ntoa(ancillary[0][2][8:12]), int(sys.argv[1]))
            if client not in upstream:
                upstream[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                clients[upstream[client]] = client
            upstream[client].sendto(data, to)
        else:
            data, (host, _) = ready.recvfrom(65535)
            speaker = struct.pack("=i4s4s", 0, socket.inet_aton(host), bytes(4))
            listener.sendmsg([data], [(socket.SOL_IP, IP_PKTINFO, speaker)], 0, clients[ready])
