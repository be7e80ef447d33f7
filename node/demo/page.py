"""How the demo is shown: one page that moves on a terminal, lines elsewhere."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.control.partitions import Partition
from node.cli.output import plain_table
from node.demo.place import DemoSite
from node.demo.readers import Readers
from node.demo.traffic import Tally
from node.demo.verdict import Verdict
from node.demo.watching import Watcher

EVENTS_SHOWN_MIN, EVENTS_SHOWN_MAX = 4, 14
OTHER_LINES = 20  # of the page
DRAWN_PER_S = 5
TELL_EVERY_S = 5.0
WAITING_S = 0.7  # without an acknowledgement: told in red

STATES = {"up": "bold green", "starting": "yellow", "cut off": "red", "killed": "bold red", "down": "dim"}


class Scene(NamedTuple):
    """What there is to see."""

    sites: Sequence[DemoSite]
    tally: Tally
    readers: Readers
    watcher: Watcher
    goal: int


class Page:
    """`step` says what is done now, `say` what happened. `live`: one page on standard output, drawn again and again; else
    lines, to standard error if `quiet`, so that standard output stays free for the answer."""

    def __init__(self, now: Callable[[], float], *, quiet: bool) -> None:
        self._clock = now
        self._began = now()
        self._step, self._stepped = "", self._began
        self._events: list[tuple[float, str]] = []
        self._quiet = quiet
        self._live: Live | None = None
        self._drawing: asyncio.Task[None] | None = None
        self.scene: Scene | None = None

    async def __aenter__(self) -> "Page":
        if not self._quiet and sys.stdout.isatty():
            self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=False)
            self._live.start()
        self._drawing = asyncio.create_task(self._draw_for_ever(), name="page")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.gather(self._drawing, return_exceptions=True)
        if self._live is not None:
            self._live.update(self._page(), refresh=True)
            self._live.stop()

    @property
    def doing(self) -> str:
        """What is done now."""
        return self._step

    def step(self, text: str) -> None:
        self._step, self._stepped = text, self._clock()
        self._line(f"── {text}")

    def say(self, text: str) -> None:
        self._events.append((self._clock() - self._began, text))
        self._line(text)

    def _line(self, text: str) -> None:
        if self._live is None:
            click.echo(f"{self._clock() - self._began:6.1f} s  {text}", err=self._quiet)

    async def _draw_for_ever(self) -> None:
        told = self._clock()
        while True:
            if self._live is not None:
                self._live.update(self._page(), refresh=True)
            elif self._clock() - told >= TELL_EVERY_S:
                told = self._clock()
                self._line(f"   {self._progress()}")
            await asyncio.sleep(1 / DRAWN_PER_S)

    def _progress(self) -> str:
        scene = self.scene
        if scene is None or scene.tally.last_at is None:
            stages = [f"{site.name} {site.stage() or site.state}" for site in scene.sites] if scene else []
            return ", ".join(stages)
        there = ", ".join(
            f"{site.name} {scene.readers.messages(site.name)}" for site in scene.sites if site.state == "up"
        )
        return f"acknowledged {len(scene.tally.acknowledged)} of {scene.goal}; readers see: {there}"

    def _room(self) -> int:
        """For so many events there are lines on the terminal."""
        height = self._live.console.height if self._live is not None else 0
        return min(max(height - OTHER_LINES, EVENTS_SHOWN_MIN), EVENTS_SHOWN_MAX)

    def _page(self) -> RenderableType:
        step = Text(f"\n{self._step} … {self._clock() - self._stepped:.0f} s", style="bold")
        events = [
            Text.assemble((f"{at:7.1f} s  ", "dim"), _coloured(text)) for at, text in self._events[-self._room() :]
        ]
        if self.scene is None:
            return Group(step, "", *events)
        return Group(step, "", _sites(self.scene), "", _partitions(self.scene), "", _counters(self.scene), "", *events)


def _coloured(text: str) -> Text:
    style = (
        "bold red" if "killed" in text else "bold green" if "took over" in text or "first acknowledged" in text else ""
    )
    return Text(text, style=style)


def _sites(scene: Scene) -> Table:
    table = plain_table("Site", "", "IMAP over TLS", "Homes", "Messages that readers see", "")
    for site in scene.sites:
        state = Text(site.state, style=STATES[site.state])
        seen = str(scene.readers.messages(site.name)) if site.state == "up" else ""
        homes = str(len(scene.watcher.homes_at(site.name)))
        stage = Text(site.stage() if site.state == "starting" else "", style="dim")
        table.add_row(site.name, state, f"127.0.0.1:{site.config.ports.imaps}", homes, seen, stage)
    return table


def _partitions(scene: Scene) -> Table:
    table = plain_table("Partition", "Home", "Epoch", "Led by", "Promise", "Copies")
    for name, record in sorted(scene.watcher.records.items()):
        alive = any(site.state == "up" for site in scene.sites if site.name == record.home)
        home = Text(record.home, style="green" if alive else "bold red")
        holder = record.holder.node if record.holder is not None else "nobody"
        promise = "remote" if record.remote else "local"
        table.add_row(name, home, str(record.epoch), holder, promise, _copies(scene, name, record))
    return table


def _copies(scene: Scene, name: str, record: Partition) -> Text:
    view, text = scene.watcher.view, Text()
    up = {site.name for site in scene.sites if site.state == "up"}
    members = {member.site for member in record.members}
    for copy in record.copies:
        said = view.copy(name, copy) if view is not None else None
        lag = "" if said is None or copy not in up else " level" if not said.messages else f" {said.messages} behind"
        style = "red" if copy not in up else "green" if copy in members else "yellow"
        text.append(f"{copy}{lag if copy in up else ' away'}  ", style=style)
    return text


def _counters(scene: Scene) -> Text:
    tally = scene.tally
    if tally.last_at is None:
        return Text("nothing sent yet", style="dim")
    seen = {site.name: scene.readers.messages(site.name) for site in scene.sites if site.state == "up"}
    waiting = tally.waiting_s
    return Text.assemble(
        "Acknowledged ", (f"{len(tally.acknowledged)}", "bold"), f" of {scene.goal}   seen at all sites that are up ",
        (f"{min(seen.values(), default=0)}", "bold"), "   last acknowledgement ",
        (f"{waiting:.1f} s ago", "bold red" if waiting > WAITING_S else "green"), f"   longest wait {tally.longest_s:.1f} s",
    )  # fmt: skip


def verdict_table(verdict: Verdict) -> Table:
    """For people, at the end."""
    table = Table(show_header=False, title="What the clients counted", title_justify="left")
    times, salvage = verdict.times, verdict.salvage
    for name, text, good in (
        ("acknowledged", str(verdict.acknowledged), None),
        ("found at all three sites", str(verdict.present), None),
        ("lost", str(verdict.lost), not verdict.lost),
        ("doubled", str(verdict.doubled), not verdict.doubled),
        ("changes of UIDVALIDITY", str(verdict.uidvalidity_changes), not verdict.uidvalidity_changes),
        ("mailboxes the same everywhere", "yes" if verdict.alike else "no", verdict.alike),
        ("longest time without service", f"{verdict.seconds_without_service:.1f} s", None),
        ("from the kill to the new home", f"{times.to_new_home:.1f} s", None),
        ("from the kill to the first write", f"{times.to_first_write:.1f} s", None),
        ("longest wait at the switchover", f"{times.waited_at_switchover:.2f} s", None),
        ("came back from the lost tail", f"{salvage.events} events, {salvage.messages} acknowledged messages", None),
    ):
        table.add_row(name, Text(text, style="" if good is None else "bold green" if good else "bold red"))
    return table
