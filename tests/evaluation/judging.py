"""A judge's server, over real HTTP, that misbehaves as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, str, dict[str, str]]  # status, body, headers


@dataclass
class Server:
    """What was asked; `answer` says what is replied to the n-th request with this prompt (from 0)."""

    answer: Callable[[str, int], Reply]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        request = json.loads(body)
        prompt = request["messages"][0]["content"]
        with self.lock:
            before = sum(one["messages"][0]["content"] == prompt for one in self.requests)
            self.requests.append(request)
            self.headers.append(headers)
        if path != "/v1/chat/completions":
            return 404, f"no {path}", {}
        return self.answer(prompt, before)


@contextmanager
def serving(answer: Callable[[str, int], Reply]) -> Iterator[Server]:
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text, headers = server.reply(self.path, body, dict(self.headers))
            payload = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def said(text: str) -> Reply:
    """A chat completion."""
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}), {}


def honest(prompt: str, n: int) -> Reply:
    """Compares the answers that the prompt holds."""
    start = prompt.index('{\n "question"')
    item, _ = json.JSONDecoder().raw_decode(prompt[start:])
    same = item["correct answer"] == item["model's answer"]
    return said(json.dumps({"pred": "yes" if same else "no", "score": 5 if same else 1}))
