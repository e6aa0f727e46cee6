"""What work under way looks like: rows of a terminal of a given width, and lines where there is none."""

import io
import time

import pytest
from rich.console import Console

from resjax.system import progress, terminal
from resjax.system.progress import (
    Nets,
    Screen,
    Work,
    advance,
    advance_net,
    clear,
    one_by_one,
    progress_lines,
    track,
    working,
)
from resjax.system.terminal import aligned, duration, fitted, hung, say, say_end, say_table, tell


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    """A terminal of so many columns in place of standard error, and what was written to it."""
    def make(columns):
        stream = Tty()
        console = Console(file=stream, force_terminal=True, color_system=None, width=columns, height=20,
                          legacy_windows=False, highlight=False)
        monkeypatch.setattr("sys.stderr", stream)
        for module in (progress, terminal):
            monkeypatch.setattr(module, "console", lambda: console)
        return console, stream

    yield make
    clear()


def lines_of(console):
    with console.capture() as captured:
        console.print(progress_lines())
    return captured.get().splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ["plain-32 seed 0  training", f"{'a-name-' * 6}of-a-run seed 0  training"])
def test_rows_fit_the_terminal(screen, columns, name):
    console, _ = screen(columns)
    Screen.nets = Nets([1.0, 4.0], 1, 7_500.0)
    Screen.works.append(Work(name, 64_000, 33_395, 7_500.0, ("loss 0.0461", "error 1.48 %", "rate 0.001")))
    found = lines_of(console)
    assert len(found) == 2
    assert all(len(line) <= columns - progress.SPARE for line in found)  # nothing wraps, and a ^C has its place
    assert found[0].startswith("net 2 of 2  ")
    assert found[0].rstrip().endswith("2 h 05 min left in total") or columns == 40
    assert "52 %" in found[1]
    if columns == 120 and name.startswith("plain"):
        assert "52 %  2 h 05 min left  33,395 of 64,000  loss 0.0461" in found[1]


def test_work_of_unknown_length_tells_the_time(screen):
    console, _ = screen(60)
    Screen.works.append(Work("resnet20 seed 0  compiling", begun=time.monotonic() - 65))
    assert [line.rstrip() for line in lines_of(console)] == ["resnet20 seed 0  compiling  1 min 05 s"]


def test_a_clock_goes_on_while_nothing_advances(screen, monkeypatch):
    """The program of the first steps is compiled within the work: until then its time is told, later the time left."""
    console, _ = screen(60)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    Screen.works.append(Work("averaging", 20))
    clock[0] += 7
    assert lines_of(console)[0].split()[-2:] == ["7", "s"]
    advance(5, pace=2.0)
    clock[0] += 10
    assert "25 %  20 s left  5 of 20" in lines_of(console)[0]


def test_what_is_told_meanwhile_has_lines_of_its_own(screen):
    _, stream = screen(60)
    with working("compiling"):
        Screen.live.refresh()
        tell("an image is unreadable")
        print("from elsewhere", file=__import__("sys").stderr)
        Screen.live.refresh()
    written = stream.getvalue()
    for line in ("an image is unreadable", "from elsewhere"):
        assert f"\x1b[2K{line}" in written.replace("\r", "")  # the row was cleared before, and no rest of it is left
    assert written.endswith("\x1b[2K\x1b[?25h\r")  # nor at the end
    assert Screen.live is None
    assert not Screen.works


def test_what_a_command_prints_meanwhile_has_lines_of_its_own(screen, monkeypatch):
    _, stream = screen(60)
    monkeypatch.setattr("sys.stdout", stream)  # one terminal, as usual
    with working("looking at pictures"):
        Screen.live.refresh()
        say("seven.png: 7 99.9 %")
        Screen.live.refresh()
    say("the end")
    written = stream.getvalue().replace("\r", "")
    assert "looking at pictures  0 s\x1b[2Kseven.png: 7 99.9 %\n" in written
    assert written.endswith("\x1b[2K\x1b[?25hthe end\n")


def test_words_of_a_message_stay_whole(screen):
    _, stream = screen(40)
    tell("runs/quickstart/plain-8 contains a different experiment (steps: 200 -> 300)")
    found = stream.getvalue().splitlines()
    assert len(found) > 1
    assert all(len(line) <= 40 for line in found)
    assert " ".join(line.strip() for line in found) == ("runs/quickstart/plain-8 contains a different experiment "
                                                        "(steps: 200 -> 300)")


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "NAMED", 0.02)
    monkeypatch.setattr(progress, "AGAIN", 0.05)
    with working("soon over"):
        pass
    with working("checking", 4):
        time.sleep(0.2)
        advance(1, "loss 2.3", pace=3.0)
        advance(2, pace=3.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "checking ...\nchecking: 25 %, 9 s left, 1 of 4, loss 2.3\n"


def test_a_line_is_written_with_its_end(monkeypatch):
    """What is `named_later` is told by a thread of its own, which else writes between a line and its end."""
    written = []
    stream = io.StringIO()
    stream.write = written.append
    monkeypatch.setattr("sys.stderr", stream)
    tell("training ...")
    assert written == ["training ...\n"]


def test_a_long_loop_says_how_long_it_took(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LONG", 0.0)
    assert list(track("abc", "indexing", 3, 256)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "indexing: 768 in 0 s\n"


def test_the_time_for_all_nets(monkeypatch):
    """A net of 4 s after 1 s of loading; the next two have 2 and 3 times its work."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told = []
    for number in one_by_one([0, 1, 2], [10.0, 20.0, 30.0]):
        if number == 0:
            with working("training", 8):
                clock[0] += 1
                told = [advance_net(done, pace=0.5) for done in (2, 8)]
                assert Screen.works[-1].seconds_left == 0
    assert told == ["25 s in total", "22 s in total"]  # 3 or 0, and (2 + 3) x 4, and 2 x 1 of loading
    assert Screen.nets is None


def test_the_time_for_all_where_nobody_counts_steps(monkeypatch):
    """A third of the work took 10 s, so that the rest takes 20 s; then half of it took 12 s."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told = []
    for seconds in one_by_one([10.0, 2.0, 5.0], [2.0, 1.0, 3.0], "experiment"):
        told.append(Screen.nets.parts())
        clock[0] += seconds
    assert told == [[], ["20 s left in total"], ["12 s left in total"]]


def test_nets_after_others_that_failed():
    """In a notebook, the traceback of the last cell keeps the first loop alive."""
    failed = one_by_one([0, 1], [1.0, 1.0])
    next(failed)
    assert list(one_by_one([0, 1], [1.0, 1.0])) == [0, 1]


def test_an_error_ends_the_time_for_all():
    failed = one_by_one([0, 1], [1.0, 1.0])
    next(failed)
    with pytest.raises(ValueError, match="no"), working("training", 8):
        raise ValueError("no")
    with working("training", 8):
        assert advance_net(2, pace=0.5) == ""


def test_one_net_alone_is_not_all():
    for _ in one_by_one(["net"], [1.0]):
        with working("training", 8):
            assert advance_net(2, pace=0.5) == ""


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress, "NAMED", 0.0)
    monkeypatch.setattr(Screen, "silent", True)
    with working("loading"):
        time.sleep(0.05)
        advance(1)
    assert capsys.readouterr().err == ""


def test_an_error_leaves_nothing_on_the_screen(screen):
    _, stream = screen(60)
    items = track(range(3), "indexing", 3)
    next(items)
    Screen.live.refresh()
    clear()  # as the command line does before it tells of an error; the loop still holds its generator
    tell("resjax: no such file")
    assert stream.getvalue().endswith("resjax: no such file\n")
    assert stream.getvalue().count("\x1b[?25h") == 1
    items.close()


def test_parts_that_do_not_fit_are_left_out():
    assert fitted(["step 1", "loss 2.30", "error 90 %"], 18) == "step 1  loss 2.30"
    assert fitted(["step 1", "loss 2.30"], float("inf")) == "step 1  loss 2.30"


def test_tables_are_aligned_and_fit(monkeypatch, capsys):
    rows = [["net", "error", "n"], ["plain-20", "9.1", "5"], ["a|b", "12.25", "3"]]
    assert aligned(rows, 80) == ["net       error  n", "plain-20    9.1  5", "a|b       12.25  3"]
    assert aligned(rows, 16) == ["net       error", "plain-20    9.1", "a|b       12.25", "",
                                 "net       n", "plain-20  5", "a|b       3"]  # nothing is lost
    assert aligned(rows, 5)[:3] == ["net       error", "plain-20    9.1", "a|b       12.25"]
    wide = [["stage", "blocks", "n"], ["conv2", "[1x1, 64; 3x3, 64; 1x1, 256] x 3", "9"]]
    assert aligned(wide, 30) == ["stage  blocks", "conv2  [1x1, 64; 3x3, 64; 1x1,\n       256] x 3", "",
                                 "stage  n", "conv2  9"]
    say_table("text\n\n| net | n |\n|---|---|\n| a | 5 |")
    assert capsys.readouterr().out == "text\n\n| net | n |\n|---|---|\n| a | 5 |\n"  # as it is, where nobody watches
    out = Tty()
    monkeypatch.setattr("sys.stdout", out)
    say_table("| net | n |\n|---|---|\n| a | 5 |\n")
    assert out.getvalue().splitlines()[:2] == ["net  n", "a    5"]


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (200, "3 min 20 s"), (7_500, "2 h 05 min")])
def test_durations_read_as_one_would_say_them(seconds, text):
    assert duration(seconds) == text


def test_long_findings_hang_beside_their_mark(monkeypatch):
    text = "to use a GPU or TPU: pip install 'resjax[cuda12]', 'resjax[cuda13]' or 'resjax[tpu]'"
    assert hung("note", text) == f"note  {text}"
    monkeypatch.setattr(terminal, "room", lambda stream: 40)
    first, *others = hung("note", text).splitlines()
    assert first == "note  to use a GPU or TPU: pip install"
    assert others == ["      'resjax[cuda12]', 'resjax[cuda13]'", "      or 'resjax[tpu]'"]


def test_a_command_ends_with_commands_that_can_be_copied_whole(capsys):
    say_end("In runs/a: result.json", "resjax evaluate runs/a", "resjax report runs")
    assert capsys.readouterr().out.splitlines() == [
        "In runs/a: result.json", "Next: resjax evaluate runs/a", "      resjax report runs"]
