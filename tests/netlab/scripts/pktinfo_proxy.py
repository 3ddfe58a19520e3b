# A proxy for datagrams that answers them itself: pktinfo_proxy.py PORT [ipv6] [freebind]
#
# It is told by IP_RECVORIGDSTADDR where a datagram was going, and sends the answer, which says so, from its listener and from there, by
# IP_PKTINFO. Then it says what became of that.
import errno
import socket
import struct
import sys

ipv6 = "ipv6" in sys.argv
family, level = (socket.AF_INET6, socket.IPPROTO_IPV6) if ipv6 else (socket.AF_INET, socket.SOL_IP)
transparency, freedom, told_by = (75, 78, 74) if ipv6 else (19, 15, 20)  # IP_TRANSPARENT, IP_FREEBIND, IP_RECVORIGDSTADDR
from_where = 50 if ipv6 else 8  # IPV6_PKTINFO, IP_PKTINFO
listener = socket.socket(family, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(level, transparency, 1)
if "freebind" in sys.argv:
    listener.setsockopt(level, freedom, 1)
listener.setsockopt(level, told_by, 1)
listener.bind(("::" if ipv6 else "0.0.0.0", int(sys.argv[1])))
while True:
    data, ancillary, _, client = listener.recvmsg(65535, 64)
    name = ancillary[0][2]
    ip = name[8:24] if ipv6 else name[4:8]
    told = f"{socket.inet_ntop(family, ip)} {int.from_bytes(name[2:4], 'big')} {len(data)}"
    source = ip + struct.pack("i", 0) if ipv6 else struct.pack("i", 0) + ip + ip
    try:
        listener.sendmsg([told.encode()], [(level, from_where, source)], 0, client)
        became = "sent"
    except OSError as error:
        became = errno.errorcode[error.errno]
    print("told", told, became, file=sys.stderr, flush=True)
