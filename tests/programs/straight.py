#!/usr/bin/python3
"""Tells whether a server has the client itself at the other end, or somebody between.

    straight.py HOST PORT CONNECTIONS

It opens all connections, says `connected`, and asks `/peer` on each: the answer is the client's port as the server sees it
and the process that answered. The result is JSON: how many were `straight`, how many `relayed`, and how many connections
each of the `processes` had.
"""

import collections
import json
import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
clients = [socket.create_connection((host, port), timeout=20) for _ in range(count)]
print("connected", file=sys.stderr, flush=True)
found, processes = collections.Counter(straight=0, relayed=0), collections.Counter()
for client in clients:
    client.sendall(b"GET /peer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
for client in clients:
    answer = b""
    while more := client.recv(4096):
        answer += more
    head, body = answer.decode().split("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    seen, process = body.split()
    found["straight" if int(seen) == client.getsockname()[1] else "relayed"] += 1
    processes[process] += 1
print(json.dumps({**found, "processes": processes}))
