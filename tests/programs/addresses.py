#!/usr/bin/python3
"""Asks `/` from many addresses, one after the other.

    addresses.py HOST PORT CLIENTS

HOST is 127.0.0.1, or ::1 where fd00::/64 is routed to this host. The result is JSON: for each answer the numbers of the
clients that got it; one that got none is an error.
"""

import collections
import ipaddress
import json
import socket
import sys

IPV6_FREEBIND = 78
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ipv6 = ":" in host
answers = collections.defaultdict(list)
for number in range(count):
    client = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    client.settimeout(20)
    if ipv6:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    first = ipaddress.ip_address("fd00::1" if ipv6 else "127.1.0.1")
    client.bind((str(first + number * 257), 0))
    client.connect((host, port))
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while more := client.recv(4096):
        answer += more
    client.close()
    head, body = answer.decode().split("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    answers[body].append(number)
print(json.dumps(answers))
