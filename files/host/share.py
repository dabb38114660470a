"""Hands finished artifacts to other hosts over HTTPS, and ends by itself when nobody has asked for a while.

Usage: share.py DATA_ROOT ADDRESS PORT IDLE_SECONDS KIND...    beside it: certificate.pem, key.pem, token

GET /files/KIND/KEY/PATH gives a file of <data root>/KIND/KEY, from the byte that Range names; GET /images/NAME/KEY what `docker save` says
of the image tritonhost/NAME:KEY. Everything else does not exist. Runs with the Python of Oracle Linux 8, which is 3.6.
"""

import hmac
import http.server
import os
import re
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from typing import IO, Any
from urllib.parse import unquote

CHUNK = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))
FILE = re.compile(r"/files/([a-z]+)/([0-9a-f]{8,64})/(.+)")
IMAGE = re.compile(r"/images/([a-z][a-z-]*)/([0-9a-f]{8,64})")
FROM = re.compile(r"bytes=([0-9]+)-")
TOKEN, BUSY = os.path.join(HERE, "token"), os.path.join(HERE, "busy")


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self) -> None:
        # in the request's own thread: a peer that says nothing holds nobody up
        self.request.settimeout(self.timeout)
        self.request = context.wrap_socket(self.request, server_side=True)
        http.server.BaseHTTPRequestHandler.setup(self)

    def do_GET(self) -> None:
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), wanted):
            return self.send_error(401)
        with busy:
            self.give()
        return None

    def give(self) -> None:
        file, image = FILE.fullmatch(self.path), IMAGE.fullmatch(self.path)
        if file and file.group(1) in kinds:
            self.give_file(*file.groups())
        elif image:
            self.give_image(*image.groups())
        else:
            self.send_error(404)

    def give_file(self, kind: str, key: str, quoted: str) -> None:
        root = os.path.join(data_root, kind, key)
        path = os.path.realpath(os.path.join(root, unquote(quoted)))
        # a link could lead to a file that is no artifact
        if not path.startswith(root + os.sep) or not os.path.isfile(path):
            return self.send_error(404)
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            asked = FROM.fullmatch(self.headers.get("Range", ""))
            begin = int(asked.group(1)) if asked else 0
            if begin and begin >= size:
                return self.send_error(416)
            source.seek(begin)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(size - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.end_headers()
            self.copy(source)

    def give_image(self, name: str, key: str) -> None:
        # one at a time: docker writes a copy of the whole image to its disk first
        with saving:
            tag = f"tritonhost/{name}:{key}"
            size, root = (
                said(["docker", "image", "inspect", "--format", "{{.Size}}", tag]),
                said(["docker", "info", "--format", "{{.DockerRootDir}}"]),
            )
            if size.isdigit() and root and shutil.disk_usage(root).free < int(size) * 1.1:
                return self.send_error(507, "no room for a copy of the image")
            save = subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE)
            assert save.stdout
            try:
                # in parts, so that the receiver knows the end from a connection that broke off
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                layers = save.stdout
                for part in iter(lambda: layers.read(CHUNK), b""):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                if save.wait() == 0:
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.close_connection = True
            finally:
                save.stdout.close()
                save.kill()
                save.wait()
        return None

    def copy(self, source: IO[bytes]) -> None:
        for part in iter(lambda: source.read(CHUNK), b""):
            self.wfile.write(part)

    def log_message(self, form: str, *values: Any) -> None:
        sys.stderr.write(f"{self.client_address[0]} {form % values}\n")


class Busy:
    """How many requests are answered, in a file that start_share.sh looks for; and when the last one ended."""

    def __init__(self) -> None:
        self.lock, self.running, self.last = threading.Lock(), 0, time.time()

    def __enter__(self) -> None:
        with self.lock:
            self.running += 1
            open(BUSY, "a").close()

    def __exit__(self, *_: Any) -> None:
        with self.lock:
            self.running -= 1
            self.last = time.time()
            if not self.running:
                os.remove(BUSY)


def said(command: Any) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()


def watch(idle: int) -> None:
    while True:
        time.sleep(1)
        with busy.lock:
            # a run that begins to need it touches the token
            if not busy.running and time.time() - max(busy.last, os.stat(TOKEN).st_mtime) > idle:
                os._exit(0)


busy, saving = Busy(), threading.Lock()
data_root = os.path.realpath(sys.argv[1])
kinds = sys.argv[5:]
with open(TOKEN, "rb") as file:
    wanted = file.read().strip()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if hasattr(ssl, "PROTOCOL_TLS_SERVER") else ssl.PROTOCOL_TLS)
context.load_cert_chain(os.path.join(HERE, "certificate.pem"), os.path.join(HERE, "key.pem"))
server = Server((sys.argv[2], int(sys.argv[3])), Handler)
threading.Thread(target=watch, args=(int(sys.argv[4]),), daemon=True).start()
server.serve_forever()
