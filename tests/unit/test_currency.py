"""What has moved is found on the tables of before, nothing on today's, and a page that is none is said."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operations import currency
from operations.currency import FILES, SOURCES, Pages, compared
from operations.plan.audit.currency import PageError, Row, minimum
from tests.unit import currency_pages
from tests.unit.currency_pages import NEW, OLD, TODAY, saved


def main(arguments: list[str]) -> int:
    return currency.main(arguments, TODAY)


def moved(directory: Path, ours: currency.Tables) -> dict[str, tuple[str, str]]:
    rows, unread = compared(Pages(directory), ours, TODAY)
    assert unread == {}
    assert all(row.source.startswith("https://") and "{" not in row.source for row in rows)
    return {row.thing: (row.ours, row.theirs) for row in rows}


def test_currency_finds_every_outdated_entry(tmp_path: Path) -> None:
    saved(tmp_path)
    found = moved(tmp_path, OLD)
    assert found == {
        "floor of driver R580": ("580.159.03 (NVIDIA 5821)", "580.178.04 (NVIDIA 5861 of 2026-09-30)"),
        "floor of driver R595": ("595.71.05 (NVIDIA 5821)", "595.91.07 (NVIDIA 5861 of 2026-09-30)"),
        "floor of driver R610": ("none", "610.57.04 (NVIDIA 5861 of 2026-09-30)"),
        "floor of tensorrt": ("none", "11.0 (NVIDIA 5855 of 2026-07-14)"),
        "floor of triton": ("26.06 (NVIDIA 5865)", "26.07 (NVIDIA 5875 of 2026-09-08)"),
        "image 26.08-py3": ("none", "published"),
        "image 26.09-py3": ("none", "published"),
        "image 26.10-py3": ("none", "published"),
        "driver branch R535": ("until an end not known", "lts branch, until about 2026-06"),
        "driver branch R610": ("not known", "new feature branch"),
        "driver branch R615": ("not known", "new feature branch"),
        "driver branch R620": ("not known", "lts branch"),
        **{
            f"{name} of el{os_major}": (
                pin.replace("{os_major}", os_major)
                if ":" in pin
                else f"0:{pin}".replace("{os_major}", os_major),
                NEW.packages["docker"][name].replace("{os_major}", os_major)
                if ":" in pin
                else f"0:{NEW.packages['docker'][name]}".replace("{os_major}", os_major),
            )
            for os_major in ("8", "9")
            for name, pin in OLD.packages["docker"].items()
        },
        **{f"{name} of el9": ("0:1.19.1-1", "0:1.20.0-1") for name in OLD.packages["toolkit"]},
        "shape BM.GPU.B300.8": ("none", "offered"),
        "shape BM.GPU.B4.8": ("none", "offered"),
    }


def test_currency_finds_nothing_on_current_tables(tmp_path: Path) -> None:
    saved(tmp_path)
    assert moved(tmp_path, NEW) == {}


def test_main_exits_0_when_nothing_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    assert main(["--from", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing has moved\n"


def test_main_prints_a_row_for_each_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    later = json.loads(currency_pages.tags())
    later["tags"] += ["26.11-py3", "26.11-trtllm-python-py3"]
    (tmp_path / "tags.json").write_text(json.dumps(later))
    assert main(["--from", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["thing", "ours"],
        ["image", "26.11-trtllm-python-py3"],
        ["image", "26.11-py3"],
    ]
    assert main(["--from", str(tmp_path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["unread"] == {}
    assert printed["moved"][0] == {
        "thing": "image 26.11-trtllm-python-py3",
        "ours": "none",
        "theirs": "published",
        "source": SOURCES["triton-tags"],
    }


@pytest.mark.parametrize(
    ("change", "thing", "theirs"),
    [
        (("| 13.1.0.036 | 590.44.01 |", "| 13.1.9.1 | 590.44.01 |"), "CUDA version of 26.07", "13.1.9.1"),
        (("| 1.2.1 |", "| 1.2.2 |"), "TensorRT-LLM version of 26.07", "1.2.2"),
        (("| 26.08 | nvcr.io/x", "| 26.11 | nvcr.io/x"), "image 26.11-py3", "CUDA 13.4.1.012, driver 615.61"),
        (("| 615.61 |", "| 620.1 |"), "CUDA Driver version of 26.08", "620.1"),
    ],
)
def test_moved_matrix_finds_each_change_of_the_page(
    tmp_path: Path, change: tuple[str, str], thing: str, theirs: str
) -> None:
    saved(tmp_path)
    page = currency_pages.compatibility()
    assert change[0] in page
    (tmp_path / "compatibility.md").write_text(page.replace(*change, 1))
    assert moved(tmp_path, NEW)[thing][1] == theirs


def test_moved_packages_finds_a_missing_pin(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "docker-el9-0a1b-primary.xml.gz").write_bytes(
        currency_pages.primary({"docker-ce": ["3:29.8.0-1.el9"], "docker-ce-cli": ["1:29.9.0-1.el9"]})
    )
    found = moved(tmp_path, NEW)
    assert found["docker-ce of el9"] == ("3:29.9.0-1.el9", "not there; the newest is 3:29.8.0-1.el9")
    assert found["containerd.io of el9"][1] == "no such package"


def test_moved_floors_counts_a_single_version_of_ours(tmp_path: Path) -> None:
    # 5883 is of one release candidate alone: it speaks of us where that is a floor of ours
    saved(tmp_path)
    floor = currency_pages._floor("tensorrt-llm", "1.3.0rc24", "NVIDIA 5840")
    ours = currency_pages.without(NEW, floors=(*NEW.floors, floor))
    assert moved(tmp_path, ours) == {
        "floor of tensorrt-llm": ("1.3.0rc24 (NVIDIA 5840)", "1.3.0rc25 (NVIDIA 5883 of 2026-10-27)")
    }


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("26.07", "26.07"),
        ("r26.07", "26.07"),
        ("v11.0", "11.0"),
        ("v1.3.0 rc17", "1.3.0rc17"),
        ("595.71.05", "595.71.05"),
    ],
)
def test_minimum_reads_a_version_as_bulletins_write_it(text: str, version: str) -> None:
    assert minimum(text) == version


@pytest.mark.parametrize("text", ["", "latest", "All versions", "v" + "1" * 9000, "1.2.3; x"])
def test_minimum_refuses_text_that_is_not_a_version(text: str) -> None:
    with pytest.raises(PageError, match="expected one such as"):
        minimum(text)


LOGIN = b"<!DOCTYPE html><html><body>Please log in<form></form></body></html>"
BAD = {
    "an HTML login page": LOGIN,
    "nothing": b"",
    "truncated": None,
    "binary": bytes(range(256)) * 64,
    "deep JSON": b"[" * 200_000,
    "deep XML": b"<a>" * 300_000,
    "another JSON": b'{"errors": [{"code": "DENIED"}]}',
    "a list": b"[1, 2, 3]",
    "numbers": b'{"images": 1, "tags": 2, "document": 3, "580": 4}',
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(
    "file",
    [
        *("nvidia-bulletins-2026.csv", "nvidia-5861.json", "compatibility.md", "tags.json", "releases.json"),
        *(
            "docker-el9-repomd.xml",
            "docker-el9-0a1b-primary.xml.gz",
            "toolkit-repomd.xml",
            "worker-node-images.json",
        ),
    ],
)
def test_malformed_page_is_one_line_and_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, file: str
) -> None:
    content = saved(tmp_path)[file]
    bad = BAD[kind]
    (tmp_path / file).write_bytes(content[: len(content) // 2] if bad is None else bad)
    if file == "compatibility.md" and bad is None:
        # half a page of rows is a page with fewer rows
        (tmp_path / file).write_bytes(content[:90])
    if file == "nvidia-bulletins-2026.csv" and bad is None:
        (tmp_path / file).write_bytes(content[:30])
    began = time.monotonic()
    assert main(["--from", str(tmp_path)]) == 3
    assert time.monotonic() - began < 8
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("not read: ") and ": found " in lines[0], lines
    assert len(lines[0]) < 500


@pytest.mark.parametrize("file", ["tags.json", "docker-el8-0a1b-primary.xml.gz", "nvidia-bulletins-2026.csv"])
def test_page_of_100_mb_is_one_line_and_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    saved(tmp_path)
    with (tmp_path / file).open("wb") as page:
        page.truncate(100 * 2**20)
    began = time.monotonic()
    assert main(["--from", str(tmp_path)]) == 3
    assert time.monotonic() - began < 8
    assert "found more than 16 MiB, expected a page" in capsys.readouterr().out


@pytest.mark.slow
def test_a_list_that_unpacks_to_100_mb_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    (tmp_path / "toolkit-0a1b-primary.xml.gz").write_bytes(gzip.compress(b" " * (100 * 2**20), 1))
    assert main(["--from", str(tmp_path)]) == 3
    assert "not read: toolkit: found more than 32 MiB unpacked" in capsys.readouterr().out


def test_missing_page_is_reported_and_the_rest_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path)
    (tmp_path / "releases.json").unlink()
    (tmp_path / "nvidia-5855.json").unlink()
    (tmp_path / "tags.json").write_text(json.dumps({"tags": ["26.11-py3", "26.11-trtllm-python-py3"]}))
    assert main(["--from", str(tmp_path)]) == 3
    printed = capsys.readouterr().out
    assert "image 26.11-py3" in printed
    assert (
        f"not read: nvidia-drivers: found No such file or directory, expected the file {tmp_path}/releases"
        in printed
    )
    assert "not read: nvidia-bulletin 5855: found No such file" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "/nowhere"],
        ["--source", "triton-tag=https://x"],
        ["--source", "triton-tags=ftp://x"],
        ["--what"],
    ],
)
def test_main_refuses_wrong_usage_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert capsys.readouterr().err


def test_every_page_has_a_url_and_a_file_name() -> None:
    assert set(SOURCES) == set(FILES)


# --- over HTTP, from this machine


class Mirror(http.server.BaseHTTPRequestHandler):
    pages: dict[str, bytes]
    tags: list[list[str]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            assert "scope=repository" in query
            return self.answer(b'{"token": "of-anybody"}')
        if path == "/v2/nvidia/tritonserver/tags/list":
            if self.headers.get("Authorization") != "Bearer of-anybody":
                realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="x",scope="repository:nvidia/tritonserver:pull"'
                return self.answer(b"{}", 401, {"WWW-Authenticate": realm})
            at = int(query.removeprefix("page=") or 0)
            following = {"Link": f'<{path}?page={at + 1}>; rel="next"'} if at + 1 < len(self.tags) else {}
            return self.answer(json.dumps({"tags": self.tags[at]}).encode(), 200, following)
        name = path.strip("/").replace("/repodata/", "-").replace("/", "-")
        if name not in self.pages:
            return self.answer(b"<html>no</html>", 404)
        self.answer(self.pages[name])
        return None

    def answer(self, content: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def mirror(pages: dict[str, bytes], tags: list[list[str]]) -> Iterator[str]:
    handler = type("Handler", (Mirror,), {"pages": pages, "tags": tags})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def sources(url: str) -> dict[str, str]:
    return {
        "nvidia-bulletins": f"{url}/nvidia-bulletins-{{year}}.csv",
        "nvidia-bulletin": f"{url}/nvidia-{{number}}.json",
        "triton-compatibility": f"{url}/compatibility.md",
        "triton-tags": f"{url}/v2/nvidia/tritonserver/tags/list",
        "nvidia-drivers": f"{url}/releases.json",
        "oci-shapes": f"{url}/worker-node-images.json",
        **{name: f"{url}/{name}/" for name in ("docker-el8", "docker-el9", "toolkit")},
    }


@pytest.mark.slow
def test_pages_are_read_from_mirrors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = saved(tmp_path)
    found = json.loads(pages["tags.json"])["tags"]
    with mirror(pages, [found[:20], found[20:], ["26.12-py3"]]) as url:
        given = [f"--source={name}={place}" for name, place in sources(url).items()]
        assert main(given) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].split()[:2] == ["image", "26.12-py3"]


@pytest.mark.slow
def test_http_error_is_reported_with_its_url(tmp_path: Path) -> None:
    pages = saved(tmp_path)
    del pages["compatibility.md"], pages["docker-el8-0a1b-primary.xml.gz"]
    with mirror(pages, [json.loads(pages["tags.json"])["tags"]]) as url:
        rows, unread = compared(Pages(None, sources(url)), NEW, TODAY)
    assert rows == list[Row]()
    assert unread == {
        "triton-compatibility": f"found HTTP 404 of {url}/compatibility.md, expected the page",
        "docker-el8": f"found HTTP 404 of {url}/docker-el8/{currency_pages.PRIMARY}, expected the page",
    }
    rows, unread = compared(Pages(None, sources(url)), NEW, TODAY)
    assert len(unread) == len(SOURCES) - 1
    assert all("refused" in problem for problem in unread.values())
