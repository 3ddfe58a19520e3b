# Greets whoever connects. Prints its port, then of each connection who it is from. Argument: HOST
import socket
import sys
import threading

host = sys.argv[1]
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.bind((host, 0))
listener.listen(64)
print(listener.getsockname()[1], flush=True)


def serve(stream, peer):
    print(peer[0], flush=True)
    try:
        stream.sendall(b"hello")
        while stream.recv(64):
            pass
    except OSError:
        pass
    stream.close()


while True:
    threading.Thread(target=serve, args=listener.accept()).start()
