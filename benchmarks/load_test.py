"""Several users at once on the page: every answer has to be the one that a single user gets, and memory to stay flat.

    python -m benchmarks.load_test                      # starts the page on this machine; 4 users, 200 requests

Prints a table, and ends with status 1 where a request failed, an answer differed or memory grew.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import gradio_client
from PIL import Image
from tabulate import tabulate

from benchmarks.benchmark import memory_mb
from demo.sample import draw_pair

ROOT = Path(__file__).parent.parent
GROWTH_MB = 100
Answer = str


@dataclass(frozen=True)
class Question:
    """What a user asks: a picture, what it shows, and good examples."""

    picture: Path
    class_name: str
    examples: list[Path]


@dataclass(frozen=True)
class Load:
    """What became of the requests: seconds of each that was answered, and how many went wrong."""

    seconds: list[float]
    failed: int
    differing: int


@contextmanager
def page(*options: str) -> Iterator[tuple[str, int]]:
    """The page on a free port of this machine, with its output passed on: address and process id; ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit("the page did not start")
            yield f"http://127.0.0.1:{port}/", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def draw_questions(folder: Path) -> list[Question]:
    """Twelve questions with pictures of the sample: without, with 1 and with 4 good examples, once large ones."""
    found = []
    for number, (class_name, shots) in enumerate(itertools.product(("gear", "cowhide", "button"), (0, 1, 4, 4))):
        pictures = [draw_pair(class_name, number, "test/good", index)[1] for index in range(shots + 1)]
        paths = [folder / f"{number}-{index}.jpg" for index in range(shots + 1)]
        for path, pixels in zip(paths, pictures):
            image = Image.fromarray(pixels)
            # 16 megapixels, so that memory would show if they stayed.
            (image.resize((4000, 4000)) if number == 3 else image).save(path)
        found.append(Question(paths[0], class_name, paths[1:]))
    return found


def connect(address: str) -> gradio_client.Client:
    """A user with a session of its own."""
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def ask(user: gradio_client.Client, question: Question) -> Answer:
    """Verdict and picture with heat map, as HTML."""
    picture, *examples = [gradio_client.handle_file(path) for path in (question.picture, *question.examples)]
    answer: str = user.predict([{"image": picture}], question.class_name, examples or None, 0.5, api_name="/judge")
    return answer


def load(address: str, questions: Sequence[Question], answers: Sequence[Answer], users: int, requests: int) -> Load:
    """Ask all questions in turns, every user from another one on, until ``requests`` are asked."""
    numbers, lock = iter(range(requests)), threading.Lock()
    seconds: list[float] = []
    failed = differing = 0

    def ask_on(user: gradio_client.Client) -> None:
        nonlocal failed, differing
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            chosen, started = number % len(questions), time.perf_counter()
            try:
                answer = ask(user, questions[chosen])
            except Exception as error:
                print(f"request {number} failed: {type(error).__name__}: {error}", file=sys.stderr)
                with lock:
                    failed += 1
                continue
            with lock:
                seconds.append(time.perf_counter() - started)
                differing += answer != answers[chosen]

    with ThreadPoolExecutor(users) as pool:
        list(pool.map(ask_on, [connect(address) for _ in range(users)]))
    return Load(seconds, failed, differing)


def main() -> int:
    """Run and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4, help="that ask at once (4)")
    parser.add_argument("--requests", type=int, default=200, help="in all (200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, page("--device", "cpu") as (address, process):
        questions = draw_questions(Path(folder))
        single = connect(address)
        answers = [ask(single, question) for question in questions]
        rows = []
        status = 0
        # In parts, so that memory can be seen to stay.
        before = memory_mb(process)
        parts = 4
        for part in range(parts):
            count = options.requests * (part + 1) // parts - options.requests * part // parts
            started = time.perf_counter()
            found = load(address, questions, answers, options.users, count)
            memory = memory_mb(process)
            rows.append(
                [
                    count,
                    found.failed,
                    found.differing,
                    f"{time.perf_counter() - started:.0f}",
                    f"{median(found.seconds or [0]):.2f}",
                    f"{max(found.seconds, default=0):.2f}",
                    f"{memory:.0f}",
                ]
            )
            # The first part brings every user's threads.
            grown = part > 0 and memory > float(rows[0][-1]) + GROWTH_MB
            status |= found.failed > 0 or found.differing > 0 or grown
    header = ["requests", "failed", "other answers", "seconds", "median s", "longest s", "memory, MB"]
    print(f"{options.users} users; after one user asked {len(questions)} questions the page held {before:.0f} MB")
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
