"""Holds connections that each have asked something, and tells at the end of its input what became of them.

usage: clients.py ADDRESS PORT KIND COUNT

    idle         asked twice, and got the answers
    half         sent half a request
    unanswered   asked what takes ten minutes
    slow         asked, got the answer, and at once asked what takes three seconds
"""
import collections, json, socket, sys

address, port, kind, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def ask(path):
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


def answer(connection):
    """The body of an answer; `closed` or `reset` where the connection ended."""
    received = b""
    try:
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if end and len(body) >= int(lengths[0].split(b":")[1]):
                return body.decode()
            more = connection.recv(4096)
            if not more:
                return "cut in an answer" if received else "closed"
            received += more
    except (ConnectionResetError, BrokenPipeError):
        return "cut in an answer" if received else "reset"


def begin(connection):
    # Two questions in a row: from then on the kernel acknowledges answers a little later, as in most conversations.
    for _ in range({"idle": 2, "slow": 1}.get(kind, 0)):
        connection.sendall(ask("/"))
        answer(connection)
    if kind == "slow":
        connection.sendall(ask("/slow?ms=3000"))
    elif kind == "half":
        connection.sendall(ask("/")[:-9])
    elif kind == "unanswered":
        connection.sendall(ask("/slow?ms=600000"))


def end(connection):
    connection.settimeout(10)
    if kind == "slow":
        return answer(connection)
    connection.setblocking(False)
    try:
        return "unexpected bytes" if connection.recv(4096) else "closed"
    except BlockingIOError:
        pass
    except ConnectionResetError:
        return "reset"
    if kind == "unanswered":
        return "open"
    connection.settimeout(10)
    try:
        connection.sendall(ask("/")[-9:] if kind == "half" else ask("/"))
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    return answer(connection)


connections = []
for _ in range(count):
    connections.append(socket.create_connection((address, port)))
    begin(connections[-1])
print("open", file=sys.stderr, flush=True)
sys.stdin.read()
print(json.dumps(collections.Counter(map(end, connections))))
