"""The demo's output where it is no terminal."""

from io import StringIO

from rich.console import Console

from daemon.cli.progress import show_progress
from daemon.demo.display import Display


def test_a_log_says_what_is_being_done_and_how_far_it_is() -> None:
    file = StringIO()
    display = Display(show_progress, Console(file=file, width=40))
    with display.status("Starting Phoenix (about 10 s)"):
        pass
    with display.count("Spans in Phoenix", 3) as show:
        for done in (1, 2, 3):
            show(done)
    link = f"http://127.0.0.1:8710/console/sign-in#token={'x' * 40}"
    display.print(link)
    assert file.getvalue().splitlines() == [
        "Starting Phoenix (about 10 s) …",
        "Spans in Phoenix: 1 of 3",
        "Spans in Phoenix: 3 of 3",
        link,
    ]
