"""A small hub on localhost: the listing of a repository and its files, as huggingface_hub asks for them."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repositories: dict[str, Path]):
    """Serve folders under repository names; yield (address, requested paths)."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = self.path.split("?")[0].strip("/")
            requests.append(f"{self.command} {path}")
            for name, folder in repositories.items():
                files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
                if path == f"api/models/{name}" or path.startswith(f"api/models/{name}/revision/"):
                    listing = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                    return self.send(json.dumps(listing).encode(), body)
                if path.startswith(f"api/models/{name}/tree/"):
                    tree = [
                        {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": COMMIT} for f in files
                    ]
                    return self.send(json.dumps(tree).encode(), body)
                for file in files:
                    if path in (f"{name}/resolve/{COMMIT}/{file}", f"{name}/resolve/main/{file}"):
                        return self.send((folder / file).read_bytes(), body)
            return self.send(b"{}", body, status=404, error="RepoNotFound")

        def send(self, content, body, status=200, error=None):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
