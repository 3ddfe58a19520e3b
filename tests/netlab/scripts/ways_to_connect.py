# Connects to 127.0.0.1 in one way and prints the greeting it gets.
# Arguments: WAY PORT
import select
import socket
import sys

TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262

way, server = sys.argv[1], ("127.0.0.1", int(sys.argv[2]))


def mptcp():
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    stream.connect(server)
    return stream


def fast_open_by_sendto():
    stream = socket.socket()
    stream.sendto(b"x", socket.MSG_FASTOPEN, server)
    return stream


def fast_open_by_option():
    stream = socket.socket()
    stream.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    stream.connect(server)
    stream.send(b"x")
    return stream


def non_blocking():
    stream = socket.socket()
    stream.setblocking(False)
    stream.connect_ex(server)
    select.select([], [stream], [])
    stream.setblocking(True)
    return stream


def from_a_bound_address():
    stream = socket.socket()
    stream.bind(("127.0.0.1", 0))
    stream.connect(server)
    return stream


print(globals()[way]().recv(5, socket.MSG_WAITALL).decode())
