"""What must never be seen, whatever happens. These know the whole truth."""

from typing import TYPE_CHECKING, NamedTuple

from cluster import codec
from cluster.control.partitions import Partition, in_history, spans, windowed
from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.commands import ChangeFlags
from cluster.domain.mailbox.events import AnyEvent, MessageAppended
from cluster.log.model import Record, Stored
from cluster.log.wire import COMMAND_HEADER
from cluster.position import shown, split
from tests.sim.world.setting import Placed
from tests.sim.world.tables import Tables

if TYPE_CHECKING:
    from tests.sim.world.holding import Holding
    from tests.sim.world.world import World

NEVER_LOST = "I1 acknowledged is never gone"
NOT_ROLLED_BACK = "I1 remote: acknowledged is not rolled back"
STRICT = "I1 strict: nothing is acknowledged that one site alone has"
NOT_SALVAGED = "I1 what lies in a tail is salvaged or reported"
NOT_DOUBLED = "I1 nothing is doubled"
ONE_CONTENT = "I2 a UID names one content"
ONE_EVENT = "I2 a position names one event"
TOKENS_RISE = "I3 tokens never fall"
CACHE_IS_TRUE = "I3 no change at or below a token"
ONE_STORY = "I4 all sites tell one story"
ONE_HOME = "I5 one home acknowledges"
PINNED = "I5 only an operator moves a pinned home"
WINDOWED = "I5 a windowed copy is no member, and no home but by force"
OWN_WRITES = "I6 own writes are seen"
REBUILT = "I7 a rebuild gives the same tables"
CONTENT_IS_HERE = "content is on its way before its event"
DURABLE = "what is acknowledged is on the disk"
SETTLES = "in the calm all settles"
OUR_BUG = "an exception that nobody expects"


LATELY_S = 5.0  # what lay on a disk that was lost so short ago may just have been promised on it


class Acknowledged(NamedTuple):
    position: int
    content: bytes
    epoch: int


class Truth:
    def __init__(self) -> None:
        self.events: dict[int, bytes] = {}
        self.digests: dict[int, bytes] = {}
        self.names: dict[tuple[int, int, int], bytes] = {}
        self.acknowledged: dict[bytes, Acknowledged] = {}
        self.appended: dict[bytes, bytes] = {}  # content → command that brought it
        self.forced: set[int] = set()  # epochs begun by force
        self.alone: set[int] = set()  # positions acknowledged while there was no member to wait for
        self.destroyed: set[bytes] = set()  # commands acknowledged that lie on no disk any more
        self.moves = 0
        self.salvageable = 0  # commands acknowledged that lie beyond an end, at some site
        self.words: dict[int, str] = {}  # epoch → the home that gave its word in it
        self.conditional: dict[bytes, ChangeFlags] = {}  # with an UNCHANGEDSINCE, by command
        self.tops: dict[str, int] = {}  # site → highest MODSEQ that it showed


class Checks:
    """Of one partition."""

    def __init__(self, world: "World", placed: Placed) -> None:
        self.world = world
        self.placed = placed
        self.partition = placed.name
        self.truth = Truth()
        self._local_beat = self._lax_beat = 0  # the last while words waited for nobody, or would rather than wait

    # -- while tables are folded ---------------------------------------------------------------------------------------
    def before_fold(self, site: "Holding", record: Record) -> None:
        known = self.truth.events.setdefault(record.position, record.payload)
        if known != record.payload:
            self.world.violated(ONE_EVENT, f"{shown(record.position)} at {site.name} is another event than elsewhere")
        envelope, event = codec.decode(record.payload)
        asked = self.truth.conditional.get(envelope.id)
        if asked is not None and envelope.id not in site.tables.commands:
            # RFC 7162 §3.1.3: nothing that changed since is touched.
            boxes = (box for box in site.tables.boxes() if box.id == asked.mailbox)
            for uid, message in (each for box in boxes for each in box.messages.items()):
                changed = ranges.contains(event.uids, uid) and message.modseq > (asked.unchanged_since or 0)
                # What a tail holds was decided there, on what was known there.
                if changed and len(self._epochs_of(envelope.id)) == 1:
                    self.world.violated(CACHE_IS_TRUE, f"a conditional change touches UID {uid}, that changed since")

    def folded(self, site: "Holding", record: Record, event: AnyEvent | None) -> None:
        tables, truth = site.tables, self.truth
        told = truth.digests.setdefault(record.position, tables.digest)
        if told != tables.digest:
            self.world.violated(ONE_STORY, f"digests differ at {shown(record.position)} at {site.name}")
        if tables.quarantined:
            self.world.violated(ONE_STORY, f"quarantined at {site.name}: {tables.quarantined[-1]}")
        for box in tables.boxes():
            if box.highestmodseq != record.position:
                continue
            for uid, message in box.messages.items():
                if message.modseq == record.position:
                    known = truth.names.setdefault((box.id, box.uidvalidity, uid), message.content.hash)
                    if known != message.content.hash:
                        self.world.violated(ONE_CONTENT, f"UID {uid} of {box.name} at {site.name} has another content")
        if isinstance(event, MessageAppended) and event.content.hash not in site.site.blobs.kept:
            self._fetch(site, record, event.content.hash)
        if record.position < truth.tops.get(site.name, 0):
            self.world.violated(TOKENS_RISE, f"{site.name} shows {shown(record.position)} after a later one")
        truth.tops[site.name] = record.position

    def _fetch(self, holding: "Holding", record: Record, content: bytes) -> None:
        """After a failover or the loss of a disk, content may be in no stream any more that the site can reach: then it asks
        the others for their blobs."""
        site = holding.site
        others = [other.blobs.kept[content] for other in self.world.sites.values() if content in other.blobs.kept]
        if others and (site.lost_blobs or self.truth.moves):
            site.blobs.kept[content] = others[0]
        elif self.world.setting.loses_disks:
            pass  # wanted, until somebody has it again
        else:
            self.world.violated(CONTENT_IS_HERE, f"{shown(record.position)} at {site.name}")

    def went_back(self, site: "Holding") -> None:
        self.truth.tops.pop(site.name, None)

    def rolled_back(self, site: "Holding") -> None:
        """What is shown now was shown by others, and told the same."""
        self.truth.tops.pop(site.name, None)
        tables = site.tables
        if tables.position and self.truth.digests.setdefault(tables.position, tables.digest) != tables.digest:
            self.world.violated(ONE_STORY, f"{site.name} rolled back to another story at {shown(tables.position)}")

    # -- when a home gives its word ------------------------------------------------------------------------------------
    def word(self, site: str, stored: Stored) -> None:
        record = self.world.record(self.partition)
        epoch = split(stored.last).epoch
        if record is None:
            return self.world.violated(ONE_HOME, f"{site} acknowledges {shown(stored.last)}, when there is no record")
        if any(forced > epoch for forced in self.truth.forced):
            return None  # Until it hears of it, the old home acknowledges too: that is what force means.
        if record.home != site or not in_history(spans(record), stored.last):
            said = f"epoch {record.epoch} at {record.home}, ended {record.ended}"
            return self.world.violated(
                ONE_HOME, f"{site} acknowledges {shown(stored.last)}, when the record says {said}"
            )
        if not self._is_remote(record):
            self.truth.alone.add(stored.last)
        if not stored.repeated:
            if (
                record.remote
                and record.strict
                and record.beat > self._lax_beat
                and not self._lies_elsewhere(site, stored)
            ):
                self.world.violated(STRICT, f"{shown(stored.last)} at {site}")
            first = self.truth.words.setdefault(epoch, site)
            if first != site:
                self.world.violated(ONE_HOME, f"{site} and {first} both acknowledge in epoch {epoch}")
            own = self.world.sites[site].server.streams.streams.get(f"EV-{self.partition}-{epoch}")
            if own is None or own.last < split(stored.last).sequence:
                self.world.violated(DURABLE, f"{shown(stored.last)} is in no stream of {site}")
        return None

    def recorded(self, before: Partition | None, after: Partition) -> None:
        """The control plane took another record. Homes hear of it when they next renew their lease."""
        if before is not None and before.epoch != after.epoch:
            self._moved(before, after)
        if any(windowed(after, member.site) for member in after.members):
            self.world.violated(WINDOWED, f"members {after.members}, windows {after.windows}")
        if after.holder is not None and (
            before is None or before.holder is None or before.holder.id != after.holder.id
        ):
            self._local_beat = self._lax_beat = -1  # Who takes it knows what it takes.
        if not after.remote:
            self._local_beat = after.beat
            if before is not None and before.remote:  # The operator takes the promise back.
                self.truth.alone.update(ack.position for ack in self.truth.acknowledged.values())
        if not (after.remote and after.strict):
            self._lax_beat = after.beat

    def _is_remote(self, record: Partition) -> bool:
        """Whether its home knows that words wait for members, and has some."""
        return record.remote and bool(record.members) and record.beat > self._local_beat

    def _lies_elsewhere(self, home: str, stored: Stored) -> bool:
        """Or did, when it was promised."""
        now = self.world.loop.time()
        others = (site for site in self.world.sites.values() if site.name != home)
        return any(
            other.holdings[self.partition].lies(stored.last) or now - other.lost_at < LATELY_S for other in others
        )

    def _moved(self, before: Partition, after: Partition) -> None:
        self.truth.moves += 1
        self.world.trace(
            f"{self.partition}: epoch {after.epoch} at {after.home}, ended {after.ended[-1:]}, members {before.members}"
        )
        forced = self.world.forcing[self.partition] > 0
        if before.pinned and after.home != before.home and after.begun and not forced:
            self.world.violated(PINNED, f"{after.home} takes over from {before.home}")
        if windowed(before, after.home) and not forced:
            self.world.violated(WINDOWED, f"{after.home} is home after {before.home}")
        if forced:
            self.truth.forced.add(after.epoch)
        elif before.remote:
            lost = [
                shown(ack.position)
                for ack in self.truth.acknowledged.values()
                if ack.position not in self.truth.alone
                and in_history(spans(before), ack.position)
                and not in_history(spans(after), ack.position)
            ]
            if lost:
                self.world.violated(NOT_ROLLED_BACK, f"{lost} are beyond the end when {after.home} takes over")

    def disk_lost(self, site: "Holding") -> None:
        self.went_back(site)
        self.lies_less()

    def lies_less(self) -> None:
        """What lay on one disk only may be gone."""
        lying = self._lying()
        for command, ack in self.truth.acknowledged.items():
            if command.hex() not in lying and (ack.position in self.truth.alone or not self.placed.remote):
                self.truth.destroyed.add(command)

    def acknowledged(self, command: bytes, stored: Stored, content: bytes) -> None:
        self.truth.acknowledged.setdefault(command, Acknowledged(stored.last, content, split(stored.last).epoch))
        if content:
            self.truth.appended.setdefault(content, command)

    def own_write(self, site: "Holding", command: bytes, position: int) -> None:
        if command not in site.tables.commands:
            self.world.violated(OWN_WRITES, f"OK at {site.name} for {shown(position)}, and its tables have it not")

    # -- in the calm ---------------------------------------------------------------------------------------------------
    def calm(self) -> None:
        sites = [site.holdings[self.partition] for site in self.world.sites.values()]
        told = sites[0].tables
        for site in sites[1:]:
            if site.tables.state != told.state or site.tables.digest != told.digest:
                there, here = shown(site.tables.position), shown(told.position)
                self.world.violated(ONE_STORY, f"{site.name} at {there}, {sites[0].name} at {here}")
        lying = self._lying()
        for command, ack in self.truth.acknowledged.items():
            if command in told.commands:
                continue
            epoch, sequence = split(ack.position)
            if ack.position in told.state.reports:
                continue
            if not ack.content and sequence <= told.state.salvaged.get(epoch, 0):
                continue  # Others had done the same meanwhile: nothing was left to do.
            if command.hex() in lying:
                self.truth.salvageable += 1
                if not any(site.waiting for site in sites):
                    self.world.violated(NOT_SALVAGED, f"command {command.hex()[:8]}, {shown(ack.position)}")
            elif command not in self.truth.destroyed:
                self.world.violated(NEVER_LOST, f"command {command.hex()[:8]} acknowledged at {shown(ack.position)}")
        self._once_each(told)
        again = Tables.of(told.events)
        if again.state != told.state or again.digest != told.digest:
            self.world.violated(REBUILT, "another state")

    def _epochs_of(self, command: bytes) -> set[str]:
        return {
            str(stream.config["name"]).rpartition("-")[2]
            for site in self.world.sites.values()
            for stream in site.server.streams.streams.values()
            for message in stream.messages
            if message.headers.get(COMMAND_HEADER) == command.hex()
        }

    def _lying(self) -> set[str]:
        """Commands in any stream at any site, in tails too: salvage brings those back."""
        return {
            message.headers[COMMAND_HEADER]
            for site in self.world.sites.values()
            for stream in site.server.streams.streams.values()
            for message in stream.messages
            if COMMAND_HEADER in message.headers
        }

    def _once_each(self, told: Tables) -> None:
        came: dict[bytes, int] = {}
        for box in told.boxes():
            for message in box.messages.values():
                if not message.origin:
                    came[message.content.hash] = came.get(message.content.hash, 0) + 1
        doubled = [content.hex()[:8] for content, times in came.items() if times > 1]
        if doubled:
            self.world.violated(NOT_DOUBLED, f"contents {doubled}")
