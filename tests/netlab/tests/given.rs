//! The engine that needs no privilege where it may not copy descriptors, as in some containers. What holds there as elsewhere is in the other suites, with
//! `COPYING=forbidden`; this is about the sockets that are made in the command's place and given to it.

use std::{
    io::{Read, Write},
    process::Command,
    time::{Duration, Instant},
};

use waylay_netlab::{Finished, TcpServer, Waylay, system_python};

fn waylay() -> Waylay {
    Waylay::run_without(&[libc::SYS_pidfd_getfd], None).args(["--through", "log", "--through", "log"])
}

fn greeter() -> TcpServer {
    TcpServer::with_backlog(64, |mut stream| {
        stream.write_all(b"hello")?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        Ok(())
    })
}

/// What a program prints, which is the same without waylay.
fn same(server: &TcpServer, program: &str) -> Finished {
    let port = server.address().port().to_string();
    let watched = [system_python(), "-u", "-c", program, &port];
    let direct =
        Command::new(watched[0]).args(&watched[1..]).output().unwrap_or_else(|error| panic!("{error}"));
    let finished = waylay().reporting().watch(watched).well();
    assert_eq!(finished.stdout, String::from_utf8_lossy(&direct.stdout), "{finished:?}");
    assert!(!finished.stdout.is_empty(), "{direct:?}");
    finished
}

#[test]
fn options_addresses_and_copies_of_the_descriptor_stay() {
    let finished = same(
        &greeter(),
        "
import os, socket, sys
to = ('127.0.0.1', int(sys.argv[1]))
s = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
s.setblocking(True)
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
s.bind(('127.0.0.3', 0))
bound = s.getsockname()
copy, child = socket.socket(fileno=os.dup(s.fileno())), os.fork()
if child == 0:
    copy.connect(to)
    os._exit(0)
os.waitpid(child, 0)
print(s.recv(5), copy.getpeername() == to, s.getsockname() == bound)
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
inherited = socket.socket()
inherited.set_inheritable(True)
print(os.get_inheritable(s.fileno()), os.get_inheritable(inherited.fileno()))",
    );
    assert_eq!(finished.reports().len(), 2, "{finished:?}");
}

#[test]
fn of_multipath_tcp_a_program_sees_whom_it_has_dialled() {
    let finished = same(
        &greeter(),
        "
import socket, sys
to = ('127.0.0.1', int(sys.argv[1]))
s = socket.socket(proto=262)
s.connect(to)
print(s.recv(5), s.getpeername() == to)
s.close()
plain = socket.create_connection(to)
print(plain.recv(5), plain.getpeername() == to)",
    );
    assert_eq!(finished.reports().len(), 4, "{finished:?}");
    assert!(!finished.stdout.contains("False"), "{finished:?}");
}

#[test]
fn a_connection_that_fails_can_be_made_again() {
    let finished = same(
        &greeter(),
        "
import errno, select, socket, sys
to = ('127.0.0.1', int(sys.argv[1]))
s = socket.socket()
s.setblocking(False)
print(errno.errorcode[s.connect_ex(to)])
select.select([], [s], [])
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), s.getpeername() == to, s.connect_ex(to), s.connect_ex(to))
s.setblocking(True)
print(s.recv(5))
t = socket.socket()
print(errno.errorcode[t.connect_ex(('127.0.0.1', 1))], t.connect_ex(to), t.recv(5))
# AF_UNSPEC undoes it.
import ctypes
print(ctypes.CDLL(None).connect(t.fileno(), bytes(16), 16), t.connect_ex(to), t.recv(5))",
    );
    assert_eq!(finished.reports().len(), 6, "{finished:?}");
}

#[test]
fn what_is_closed_is_closed_at_once() {
    let (told, ended) = std::sync::mpsc::channel();
    let server = TcpServer::with_backlog(64, move |mut stream| {
        let mut line = [0; 1];
        stream.read_exact(&mut line)?;
        let begun = Instant::now();
        stream.read_to_end(&mut Vec::new())?;
        told.send(begun.elapsed()).map_err(std::io::Error::other)
    });
    same(
        &server,
        "
import socket, sys, time
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'x')
s.close()
# An address that was had is free, whoever wants it then.
def free(kind):
    with socket.socket(type=kind) as first:
        first.bind(('127.0.0.1', 0))
        return first.getsockname()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(type=kind) as second:
        second.bind(free(kind))
listener = socket.create_server(('127.0.0.1', 0))
address = listener.getsockname()
listener.close()
socket.create_server(address).close()
# A service that has only begun is given the time to take it.
time.sleep(4)
print('closed')",
    );
    for _direct_and_led in 0..2 {
        let took = ended.recv_timeout(Duration::from_secs(10));
        assert!(took.as_ref().is_ok_and(|took| *took < Duration::from_secs(1)), "{took:?}");
    }
}

#[test]
fn datagrams_go_through_the_services_connected_or_not() {
    let server = greeter();
    let finished = same(
        &server,
        "
import socket, sys, threading
echo = socket.socket(type=socket.SOCK_DGRAM)
echo.bind(('127.0.0.1', 0))
def serve():
    for _ in range(2):
        datagram, peer = echo.recvfrom(100)
        echo.sendto(datagram.upper(), peer)
thread = threading.Thread(target=serve)
thread.start()
to = echo.getsockname()
s, c = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
s.sendto(b'one', to)
datagram, peer = s.recvfrom(100)
print(datagram, peer == to)
c.connect(to)
c.send(b'two')
print(c.recv(100), c.getpeername() == to)
thread.join()
# Those that stay on this host go their own way.
a, b = socket.socketpair(type=socket.SOCK_DGRAM)
a.sendmsg([b'three'])
print(b.recvmsg(10)[0])",
    );
    assert_eq!(finished.reports().len(), 4, "{finished:?}");
}

/// A socket that was not given cannot be connected by anybody else.
#[test]
fn what_was_not_given_does_not_get_past_the_services() {
    let server = greeter();
    let port = server.address().port().to_string();
    let program = "
import errno, os, socket, sys
given, taken = socket.socketpair()
if os.fork() == 0:
    # Made in another network namespace.
    os.unshare(0x50000000) if hasattr(os, 'unshare') else __import__('ctypes').CDLL(None).unshare(0x50000000)
    made = socket.socket()
    socket.send_fds(given, [b'x'], [made.fileno()])
    print(errno.errorcode[made.connect_ex(('127.0.0.1', int(sys.argv[1])))])
    os._exit(0)
os.wait()
_, fds, _, _ = socket.recv_fds(taken, 1, 1)
print(errno.errorcode[socket.socket(fileno=fds[0]).connect_ex(('127.0.0.1', int(sys.argv[1])))])";
    let finished = waylay().reporting().watch([system_python(), "-u", "-c", program, &port]).well();
    assert_eq!(finished.stdout, "EACCES\nEACCES\n", "{finished:?}");
    assert_eq!(finished.reports().len(), 0, "{finished:?}");
}

#[test]
fn a_socket_that_is_disconnected_is_connected_to_nobody() {
    let finished = same(
        &greeter(),
        "
import ctypes, socket, sys
to, libc = ('127.0.0.1', int(sys.argv[1])), ctypes.CDLL(None)
s = socket.create_connection(to)
print(s.recv(5), s.getpeername() == to, libc.connect(s.fileno(), bytes(16), 16))
try: print(s.getpeername())
except OSError as error: print(error)
s.connect(to)
print(s.recv(5), s.getpeername() == to)",
    );
    assert_eq!(finished.reports().len(), 4, "{finished:?}");
}
