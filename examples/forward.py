#!/usr/bin/env python3
"""A redirect service: it says who connects where, and lets everything pass.

    waylay run --through exec:/path/to/forward.py -- curl http://example.test/

It needs nothing but the standard library. One thread accepts on each of the
listening sockets that were passed, and each connection has a thread of its own.
"""

import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time

SOL_WAYLAY = 0x5759
QUERY_RECORDS, QUERY_CONTEXT, SET_RECORDS, QUERY_ORIGINAL_DST = 220, 221, 222, 230

# With this a close is a reset, whoever closes: also the kernel, when this
# process is killed. Otherwise half a file would look like a whole one.
RESET = struct.pack("ii", 1, 0)
IN_ORDER = struct.pack("ii", 0, 0)


def passed_listeners():
    """The sockets that sd_listen_fds(3) describes, as far as they are TCP's."""
    if os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        sys.exit("forward.py: the listening sockets are for another process")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    named = enumerate(names[: int(os.environ.get("LISTEN_FDS", "0"))], start=3)
    listeners = [socket.socket(fileno=fd) for fd, name in named if name in ("tcp4", "tcp6")]
    if not listeners:
        sys.exit("forward.py: no listening sockets; start it by `waylay run --through exec:…`")
    return listeners


def accept(listener, stop):
    """Serves until the other end of the pipe `stop` is closed, then those that wait already."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(stop, 0)
    while True:
        stopped = any(fd == stop for fd, _ in poll.poll())
        try:
            inbound, _ = listener.accept()
        except BlockingIOError:
            if stopped:
                return listener.close()
            continue
        except OSError:
            time.sleep(0.01)  # No descriptor or memory left, or the client gave up.
            continue
        try:
            threading.Thread(target=serve, args=(inbound,)).start()
        except RuntimeError:  # No thread left.
            inbound.close()


def serve(inbound):
    """Carries one connection on. Whatever fails, both sides are reset."""
    with inbound:
        try:
            # It may have been waiting before its listener had the option.
            inbound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            records = inbound.getsockopt(SOL_WAYLAY, QUERY_RECORDS, 48)
            family, address = original_destination(inbound)
            leg = f"{application(inbound)} -> {address[0]} port {address[1]}"
        except OSError:
            return  # Somebody dialled the listener, or has left already.
        try:
            up, down = forward(inbound, records, family, address)
            print(f"{leg}: {up} B up, {down} B down", flush=True)
        except OSError as error:
            inbound.close()  # The application need not wait until this is printed.
            print(f"{leg}: {error.strerror}", flush=True)


def forward(inbound, records, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as outbound:
        outbound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        outbound.setsockopt(SOL_WAYLAY, SET_RECORDS, records)  # Before it connects.
        outbound.connect(address)
        counts = relay(inbound, outbound)
        for end in inbound, outbound:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, IN_ORDER)
        return counts


def application(inbound):
    """See `struct wl_context` in crates/engine-ebpf/bpf/abi.h."""
    context = inbound.getsockopt(SOL_WAYLAY, QUERY_CONTEXT, 1024)
    pid, _uid, command = struct.unpack_from("=II16s", context, 80)
    return f"{command.split(bytes(1))[0].decode(errors='replace')}[{pid}]"


def original_destination(inbound):
    """A sockaddr_in or sockaddr_in6: see ip(7) and ipv6(7)."""
    raw = inbound.getsockopt(SOL_WAYLAY, QUERY_ORIGINAL_DST, 28)
    family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from("!H", raw, 2)[0]
    if family == socket.AF_INET:
        return family, (socket.inet_ntop(family, raw[4:8]), port)
    scope = struct.unpack_from("=I", raw, 24)[0]
    return family, (socket.inet_ntop(family, raw[8:24]), port, 0, scope)


class Direction:
    """Moves bytes one way. It reads only when none are held back."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.held = b""
        self.count = 0
        self.ended = False

    def wants(self):
        if self.held:
            return self.sink, select.POLLOUT
        return self.source, 0 if self.ended else select.POLLIN

    def advance(self):
        try:
            if not self.held and not self.ended:
                self.held = self.source.recv(65536)
                if not self.held:
                    self.sink.shutdown(socket.SHUT_WR)  # The other direction goes on.
                    self.ended = True
            if self.held:
                sent = self.sink.send(self.held)
                self.held = self.held[sent:]
                self.count += sent
        except BlockingIOError:
            pass


def relay(inbound, outbound):
    """Until both directions have ended in order. The first error ends both: it
    is reported once, and reading on would show a clean end."""
    up, down = Direction(inbound, outbound), Direction(outbound, inbound)
    inbound.setblocking(False)
    outbound.setblocking(False)
    while not (up.ended and down.ended):
        events = {inbound: 0, outbound: 0}
        for end, wanted in up.wants(), down.wants():
            events[end] |= wanted
        poll = select.poll()
        for end, wanted in events.items():
            if wanted:
                poll.register(end, wanted)
        poll.poll()
        up.advance()
        down.advance()
    return up.count, down.count


def main():
    # Every thread inherits this, so that the signal waits until it is asked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.stack_size(256 * 1024)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Two are needed for each connection.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stop, stop_by_closing = os.pipe()
    for listener in passed_listeners():
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # What it accepts inherits it.
        listener.setblocking(False)
        threading.Thread(target=accept, args=(listener, stop)).start()
    signal.sigwait({signal.SIGTERM})
    os.close(stop_by_closing)
    # Python ends when the last connection has.


if __name__ == "__main__":
    main()
