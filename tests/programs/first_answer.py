"""How long it takes from `dorc switch web --no-wait` to the first answer of the other version, on new connections.

usage: first_answer.py COUNT; writes one number of microseconds a line
"""
import os, socket, sys, time

COMMAND = ["dorc", "switch", "web", "--no-wait"]
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def ask():
    with socket.create_connection(("127.0.0.1", 80)) as connection:
        connection.sendall(REQUEST)
        received = b""
        while more := connection.recv(4096):
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"not an answer: {received}")
    return body


nothing = os.open("/dev/null", os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, nothing, 1), (os.POSIX_SPAWN_DUP2, nothing, 2)]
for _ in range(int(sys.argv[1])):
    before = ask()
    begin = time.monotonic_ns()
    command = os.posix_spawnp(COMMAND[0], COMMAND, os.environ, file_actions=actions)
    while ask() == before:
        pass
    print((time.monotonic_ns() - begin) // 1000)
    _, status = os.waitpid(command, 0)
    if status != 0:
        sys.exit(f"{COMMAND}: {status}")
