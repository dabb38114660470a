"""A chat with the lab's host through its door, by the `openai` package: `python -m tests.lab.chat "QUESTION"`.

Prints the answer as it comes and how long its parts took, and draws that in build/chat.svg. The door listens on the host's
loopback, so that the way there is an SSH tunnel.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise

import openai

from tests.lab.settings import REPOSITORY
from tests.verify.connection import InventoryError, connected, targets

PORT = 9000
PICTURE = REPOSITORY / "build" / "chat.svg"


def main() -> int:
    """Ask, print and draw. Returns 1 where no door answers."""
    question = " ".join(sys.argv[1:]) or "What is machine learning?"
    try:
        [target, *_] = targets("inventories/lab.py")
        with connected(target) as connection, connection.tunnel("127.0.0.1", PORT) as endpoint:
            times = asked(f"http://{endpoint}/v1", question)
    except InventoryError as error:
        print(error, file=sys.stderr)
        return 1
    except openai.APIError as error:
        print(
            f"no door answers on port {PORT} of the host ({error}); deploy with LAB_DOOR={{}}",
            file=sys.stderr,
        )
        return 1
    gaps = [1000 * (later - earlier) for earlier, later in pairwise(times)]
    print(f"\nfirst part after {1000 * times[0]:.0f} ms", end="")
    print(f", then one each {statistics.median(gaps):.0f} ms (median of {len(gaps)})" if gaps else "")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(times, question), encoding="utf-8")
    print(f"drawn in {PICTURE.relative_to(REPOSITORY)}")
    return 0


def asked(url: str, question: str) -> list[float]:
    """Print the answer as it comes. Returns when each part came, in seconds since the request."""
    with openai.OpenAI(base_url=url, api_key="not needed from the host itself", max_retries=0) as client:
        model = client.models.list().data[0].id
        began, times = time.monotonic(), list[float]()
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=48,
            temperature=0,
            stream=True,
        )
        for part in stream:
            if part.choices and (text := part.choices[0].delta.content):
                times.append(time.monotonic() - began)
                print(text, end="", flush=True)
    return times


def picture(times: list[float], question: str) -> str:
    """When each part of the answer came, as an SVG: one bar a part, as high as it took since the one before."""
    gaps = [1000 * (later - earlier) for earlier, later in pairwise([0.0, *times])]
    top, width = max(gaps), 640 / len(gaps)
    escaped = question.replace("&", "&amp;").replace("<", "&lt;")
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 240" font-family="sans-serif" font-size="13">',
        '<rect width="720" height="240" fill="#ffffff"/>',
        f'<text x="40" y="24" font-weight="bold">{escaped}</text>',
        f'<text x="40" y="226">milliseconds until each part: the first after {gaps[0]:.0f}, the longest {top:.0f}</text>',
    ]
    for number, gap in enumerate(gaps):
        height = 160 * gap / top
        place = f'x="{40 + number * width:.1f}" y="{205 - height:.1f}"'
        lines.append(f'<rect {place} width="{max(width - 2, 1):.1f}" height="{height:.1f}" fill="#2a7ab8"/>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
