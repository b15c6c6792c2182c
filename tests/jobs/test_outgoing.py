from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException

import pytest

from errors import InputError
from jobs import outgoing
from jobs.outgoing import check_url, is_public, post


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), body))
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
     "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
     "2001:0:7f00:1::1"],
)  # fmt: skip
def test_addresses_of_this_machine_or_its_network(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_that_anybody_can_have(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["", "films", "ftp://a.example", "http://", "http://a.example:0", "http://a.example:99999", "http://a b", "http://ü.example", None, 7,
     "http://u:p@a.example/", "http://[::1", "http://a.example/\n", "http://" + "a" * 3000, "http://127.0.0.1/", "http://[::1]/",
     "http://169.254.169.254/latest", "file:///etc/passwd"],
)  # fmt: skip
def test_addresses_that_are_refused_at_once(url: object) -> None:
    with pytest.raises(InputError):
        check_url(url)


def test_a_private_one_may_be_allowed() -> None:
    assert check_url("http://127.0.0.1:8000/x?y=1", allows_private=True).port == 8000
    assert check_url("https://films.example.com/done").hostname == "films.example.com"


def test_a_post_arrives_and_a_redirect_is_not_followed(receiver: http.server.HTTPServer) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}"
    assert post(f"{url}/done?x=1", b"{}", {"X-Test": "1"}, allows_private=True) == 200
    assert post(f"{url}/away", b"{}", {}, allows_private=True) == 302
    assert [path for path, _, _ in receiver.seen] == ["/done?x=1", "/away"]
    _, headers, body = receiver.seen[0]
    assert (headers["Host"], headers["X-Test"], body) == (f"127.0.0.1:{receiver.server_port}", "1", b"{}")


def test_a_name_that_leads_home_is_refused_and_nothing_is_sent(receiver: http.server.HTTPServer) -> None:
    with pytest.raises(InputError, match="leads to an address of this machine"):
        post(f"http://localhost:{receiver.server_port}/", b"{}", {})
    assert receiver.seen == []


def test_what_was_looked_up_is_what_is_connected_to(receiver: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means something else at the second look does not get us there."""
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.server_port))]]
    monkeypatch.setattr(outgoing.socket, "getaddrinfo", lambda *_, **__: answers.pop(0))
    assert post(f"http://films.example.com:{receiver.server_port}/", b"{}", {}, allows_private=True) == 200
    assert answers == []


def test_nobody_there(receiver: http.server.HTTPServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            post(f"http://127.0.0.1:{free.getsockname()[1]}/", b"{}", {}, allows_private=True)


@pytest.mark.parametrize("answer", [b"H", b"nonsense\r\n\r\n", b""])
def test_an_answer_that_drips_or_is_none_comes_to_an_end(answer: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    for _ in range(200 if answer == b"H" else 1):
                        connection.sendall(answer)
                        time.sleep(0.02 if answer == b"H" else 0)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, allows_private=True, seconds=0.3)
        assert time.monotonic() - began < 2
        thread.join()


def test_a_secret_address_needs_a_good_certificate(receiver: http.server.HTTPServer) -> None:
    with pytest.raises(OSError, match=r"SSL|timed out"):
        post(f"https://127.0.0.1:{receiver.server_port}/", b"{}", {}, allows_private=True, seconds=1)
