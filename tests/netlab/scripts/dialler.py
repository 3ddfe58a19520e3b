# A client that is told what to do, line by line, and says how it went:
#   dial HOST PORT   connect, read a greeting, close
#   open HOST PORT   connect, read a greeting, keep the connection
#   storm HOST PORT  dial without a pause until a refusal, and see whether it lasts
#   get HOST PORT    connect, send a request, read five bytes, close
#   source HOST PORT connect, say the own address, close
#   name HOST PORT   connect, read a greeting, say the own address and port, close
#   pid              say the number of this process
#   listen HOST PORT listen there from now on
#   accept           keep a connection that has come
#   ping             send a byte on it and read the echo
#   drain            read it to its end
import errno
import os
import socket
import sys
import time

kept = None


def connect(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.settimeout(60)
    stream.connect((host, int(port)))
    return stream


def name(error):
    return errno.errorcode.get(error.errno, str(error))


def greeting(host, port):
    try:
        stream = connect(host, port)
    except OSError as error:
        return None, name(error)
    try:
        got = stream.recv(5, socket.MSG_WAITALL)
    except OSError as error:
        return None, "connected, then " + name(error)
    return (stream, "ok") if len(got) == 5 else (None, f"connected, then an end after {len(got)}")


def dial(host, port):
    stream, answer = greeting(host, port)
    if stream:
        stream.close()
    return answer


def get(host, port):
    try:
        with connect(host, port) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return stream.recv(5, socket.MSG_WAITALL).decode()
    except OSError as error:
        return name(error)


def source(host, port):
    try:
        with connect(host, port) as stream:
            return stream.getsockname()[0]
    except OSError as error:
        return name(error)


def own_name(host, port):
    stream, answer = greeting(host, port)
    if not stream:
        return answer
    with stream:
        return "%s:%d" % stream.getsockname()[:2]


listeners = []


def listen(host, port):
    listeners.append(socket.create_server((host, int(port))))
    return "listening"


def accept():
    global kept
    kept = listeners[-1].accept()[0]
    return "ok"


def storm(host, port):
    while dial(host, port) != "ECONNREFUSED":
        # Without it the ephemeral ports would run out.
        time.sleep(0.001)
    later = {dial(host, port) for _ in range(200)}
    return "refused for good" if later == {"ECONNREFUSED"} else f"after a refusal: {later}"


def ping():
    try:
        kept.sendall(b"x")
        return "pong" if kept.recv(1) == b"x" else "eof"
    except OSError as error:
        return name(error)


def drain():
    try:
        while kept.recv(4096):
            pass
        return "eof"
    except OSError as error:
        return name(error)


for line in sys.stdin:
    words = line.split()
    if words[0] == "dial":
        answer = dial(*words[1:])
    elif words[0] == "get":
        answer = get(*words[1:])
    elif words[0] == "source":
        answer = source(*words[1:])
    elif words[0] == "name":
        answer = own_name(*words[1:])
    elif words[0] == "pid":
        answer = os.getpid()
    elif words[0] == "listen":
        answer = listen(*words[1:])
    elif words[0] == "accept":
        answer = accept()
    elif words[0] == "storm":
        answer = storm(*words[1:])
    elif words[0] == "open":
        kept, answer = greeting(*words[1:])
    elif words[0] == "ping":
        answer = ping()
    else:
        answer = drain()
    print(answer, flush=True)
