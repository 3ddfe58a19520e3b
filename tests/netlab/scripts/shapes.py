# Connects in one way, and says of each connection the greeting, where it goes and where it comes from.
# Arguments: WAY HOST PORT OWN DEVICE, OWN and DEVICE being the address and the device towards HOST.
import array
import ctypes
import os
import select
import socket
import struct
import sys
import threading

TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262

way, host, port, own, device = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
server = (host, port)
family = socket.AF_INET6 if ":" in host else socket.AF_INET


def say(stream):
    greeting = stream.recv(5, socket.MSG_WAITALL).decode()
    words = [greeting, *stream.getpeername()[:2], stream.getsockname()[0]]
    # At once, so that threads do not mix their lines.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def tell(stream):
    say(stream)
    stream.close()


def connected(stream):
    stream.connect(server)
    return stream


def plain():
    tell(connected(socket.socket(family)))


def non_blocking():
    stream = socket.socket(family)
    stream.setblocking(False)
    stream.connect_ex(server)
    select.select([], [stream], [])
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    stream.setblocking(True)
    tell(stream)


def fast_open_by_sendto():
    stream = socket.socket(family)
    stream.sendto(b"x", socket.MSG_FASTOPEN, server)
    tell(stream)


def fast_open_by_option():
    stream = socket.socket(family)
    stream.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    stream.connect(server)
    stream.send(b"x")
    tell(stream)


def multipath():
    tell(connected(socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)))


def from_a_bound_address():
    stream = socket.socket(family)
    stream.bind((own, 0))
    tell(connected(stream))


def on_a_bound_device():
    stream = socket.socket(family)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    tell(connected(stream))


def disconnected_and_connected_again():
    stream = socket.socket(family)
    for _ in range(2):
        stream.connect(server)
        say(stream)
        ctypes.CDLL(None).connect(stream.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


def in_threads():
    threads = [threading.Thread(target=plain) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def passed_to_another_process():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        _, rights, _, _ = there.recvmsg(1, 64)
        descriptor = array.array("i", rights[0][2][:4])[0]
        tell(connected(socket.socket(fileno=descriptor)))
        os._exit(0)
    stream = socket.socket(family)
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [stream.fileno()]))])
    os.wait()


def connected_and_passed_to_another_process():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        _, rights, _, _ = there.recvmsg(1, 64)
        descriptor = array.array("i", rights[0][2][:4])[0]
        tell(socket.socket(fileno=descriptor))
        os._exit(0)
    stream = connected(socket.socket(family))
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [stream.fileno()]))])
    stream.close()
    os.wait()


def after_an_exec():
    stream = socket.socket(family)
    stream.set_inheritable(True)
    program = os.environ["SHAPES"]
    os.environ["INHERITED"] = str(stream.fileno())
    os.execv(sys.executable, [sys.executable, "-c", program, "inherited", *sys.argv[2:]])


def inherited():
    tell(connected(socket.socket(fileno=int(os.environ["INHERITED"]))))


globals()[way]()
