#!/usr/bin/python3
"""A backend that listens in one of the many ways in which servers do, for what looks for its sockets.

    listeners.py WAY PORT

It answers `/` with the file `version` beside it, and anything else with the client's port as it sees it and the process that
answers: a client whose own port that is has nobody between itself and this server.
"""

import os
import signal
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(sys.argv[0]))
WAY, PORT = sys.argv[1], int(sys.argv[2])
CHILDREN = 4
MULTIPATH = 262

with open(os.path.join(HERE, "version"), encoding="utf-8") as file:
    VERSION = file.read().strip()


def say(text):
    print(text, file=sys.stderr, flush=True)


def bound(host="127.0.0.1", shared=False, protocol=0):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, PORT))
    listener.listen(1024)
    return listener


def talk(client, peer):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            more = client.recv(4096)
            if not more:
                return client.close()
            received += more
        head, received = received.split(b"\r\n\r\n", 1)
        body = VERSION if head.startswith(b"GET / ") else f"{peer[1]} {os.getpid()}"
        closes = b"Connection: close" in head
        end = "Connection: close\r\n" if closes else ""
        client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{end}\r\n{body}".encode())
        if closes:
            return client.close()


def talk_until_it_ends(client, peer):
    try:
        talk(client, peer)
    except OSError:
        client.close()


def serve(listener):
    while True:
        try:
            accepted = listener.accept()
        except OSError:
            return
        threading.Thread(target=talk_until_it_ends, args=accepted, daemon=True).start()


def children(work):
    """So many processes that do it; this one only looks on."""
    for _ in range(CHILDREN):
        if os.fork() == 0:
            work()
            os._exit(0)
    say("listens")
    while True:
        signal.pause()


def prefork():
    listener = bound()
    children(lambda: serve(listener))


def reuseport():
    children(lambda: serve(bound(shared=True)))


def handover():
    """The process that listens gives its socket away, through a socket, to one that is there already."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        _, [descriptor], _, _ = socket.recv_fds(theirs, 1, 1)
        # Not where anybody would look first.
        os.dup2(descriptor, 300)
        os.close(descriptor)
        serve(socket.socket(fileno=300))
    listener = bound()
    socket.send_fds(ours, [b"x"], [listener.fileno()])
    listener.close()
    say("listens")
    while True:
        signal.pause()


def reopen():
    """At SIGHUP it listens no more until there is a file `open` in its state directory."""
    told = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: told.set())
    permission = os.path.join(os.environ["STATE_DIRECTORY"], "open")
    while True:
        listener = bound()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        say("listens")
        while not told.wait(0.05):
            pass
        told.clear()
        # A thread that accepts keeps it open; this wakes it up.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        say("listens no more")
        while not os.path.exists(permission):
            time.sleep(0.02)


def families():
    threading.Thread(target=serve, args=(bound("::1"),), daemon=True).start()
    serve(bound())


def multipath():
    serve(bound(protocol=MULTIPATH))


def single():
    serve(bound())


globals()[WAY]()
