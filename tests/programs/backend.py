#!/usr/bin/python3
"""A backend for tests, as a script: HTTP/1.1 with keep-alive on 127.0.0.1:$PORT.

As `backend.rs`, it answers `/` with the file `version` beside it and does what the file `behaviour` says:
`ok`, `exit 3`, `unhealthy`. Python's own server, nothing to install.
"""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = os.path.dirname(os.path.realpath(sys.argv[0]))


def beside(name, default=""):
    try:
        with open(os.path.join(HERE, name), encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return default


VERSION = beside("version", "unknown")
BEHAVIOUR = beside("behaviour", "ok")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it the head and the body of an answer wait for each other in two packets.
    wbufsize = -1

    def do_GET(self):
        if self.path == "/":
            status, body = 200, VERSION
        elif self.path == "/healthz":
            status, body = (503, "unhealthy") if BEHAVIOUR == "unhealthy" else (200, "ok")
        else:
            status, body = 404, "no such path"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


if BEHAVIOUR.startswith("exit "):
    sys.exit(int(BEHAVIOUR.split()[1]))
server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"version {VERSION} listens", file=sys.stderr, flush=True)
server.serve_forever()
