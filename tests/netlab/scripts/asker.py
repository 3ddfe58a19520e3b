# A transparent proxy that forwards nothing: to each connection it sends one line of what it is told of it.
# Arguments: ADDRESS PORT. Listens on IPv4 too if ADDRESS is "::".
import errno
import json
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


def outcome(ask):
    try:
        return ask()
    except OSError as error:
        return errno.errorcode[error.errno]


def sockaddr_in(raw):
    return f"{socket.inet_ntop(socket.AF_INET, raw[4:8])} {struct.unpack('>H', raw[2:4])[0]}"


def sockaddr_in6(raw):
    return f"{socket.inet_ntop(socket.AF_INET6, raw[8:24])} {struct.unpack('>H', raw[2:4])[0]}"


def told(accepted):
    v4 = lambda: sockaddr_in(accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
    v6 = lambda: sockaddr_in6(accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
    own = accepted.getsockname()
    return {
        "so_original_dst": outcome(v4),
        "ip6t_so_original_dst": outcome(v6),
        "short": outcome(lambda: accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 8).hex()),
        "getsockname": f"{own[0]} {own[1]}",
    }


def transparent(listener):
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    listener.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    return "ok"


host, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
granted = outcome(lambda: transparent(listener))
listener.bind((host, port))
listener.listen(64)
print("ready", flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.sendall((json.dumps(told(accepted) | {"transparent": granted}) + "\n").encode())
    accepted.close()
