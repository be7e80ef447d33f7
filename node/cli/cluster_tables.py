"""What `angarium cluster` shows, from the API's JSON: tables for people, fields between tabs for pipes, TOML."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from node.cli.output import plain_table

UNITS = ("B", "KB", "MB", "GB", "TB")
SETTINGS = ("home", "copies", "durability", "strict", "pinned")
KINDS = ("topology", "sites", "failover", "durability", "strict")


def status_page(seen: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = []
    if seen["note"]:
        parts += [Text(seen["note"], style="bold red"), ""]
    parts += [_sites(seen), "", _partitions(seen)]
    return Group(*parts)


def _sites(seen: dict[str, Any]) -> Table:
    table = plain_table("Site", "", "Link", "Homes", "Spool", "Node", "Version", "Last heard", "Leads")
    for site in seen["sites"]:
        link = "here" if site["site"] == seen["site"] else _ms(site["link_ms"])
        first = (site["site"], _standing(site["here"]), link, str(site["homes"]), _spool(site))
        for number, node in enumerate(site["nodes"] or [None]):
            head = first if number == 0 else ("", "", "", "", "")
            if node is None:
                table.add_row(*head, "", "", "never", "")
                continue
            heard = "now" if node["silent_s"] < 3 else _ago(node["silent_s"])
            name = Text(node["node"], style="" if node["here"] else "red")
            table.add_row(*head, name, node["version"], heard, str(len(node["leads"])))
    return table


def _partitions(seen: dict[str, Any]) -> Table:
    table = plain_table("Partition", "Home", "Epoch", "Lease", "Durability", "Copy", "", "Behind", "Digest")
    for found in seen["partitions"]:
        lease = "nobody" if found["node"] is None else f"{found['node']}, {_lease(found['lease_age_s'])}"
        settings = [found["durability"], *(word for word in ("strict", "pinned") if found[word])]
        first = (found["partition"], found["home"], str(found["epoch"]), lease, " ".join(settings))
        for number, copy in enumerate(found["copies"] or [None]):
            head = first if number == 0 else ("", "", "", "", "")
            if copy is None:
                table.add_row(*head, "nowhere", "", "", "")
                continue
            standing = _standing_of(copy)
            style = "red" if not copy["here"] else "green" if copy["member"] else "yellow"
            digest = found["digest"] or "" if number == 0 else ""
            table.add_row(*head, copy["site"], Text(standing, style=style), _behind(copy), digest)
    return table


def status_lines(seen: dict[str, Any]) -> Iterator[str]:
    """One line a site, node, partition and copy: its kind, then fields between tabs."""
    if seen["note"]:
        yield f"note\t{seen['note']}"
    for site in seen["sites"]:
        link = "here" if site["site"] == seen["site"] else _ms(site["link_ms"])
        yield f"site\t{site['site']}\t{'here' if site['here'] else 'away'}\t{link}\t{site['homes']} homes\t{_spool(site)}"
        for node in site["nodes"]:
            heard = _ago(node["silent_s"])
            yield f"node\t{node['node']}\t{'here' if node['here'] else 'away'}\t{node['version']}\t{heard}"
    for found in seen["partitions"]:
        holder = found["node"] or "nobody"
        age = _lease(found["lease_age_s"])
        settings = " ".join([found["durability"], *(word for word in ("strict", "pinned") if found[word])])
        yield f"partition\t{found['partition']}\t{found['home']}\tepoch {found['epoch']}\t{holder}\t{age}\t{settings}"
        for copy in found["copies"]:
            yield f"copy\t{found['partition']}\t{copy['site']}\t{_standing_of(copy)}\t{_behind(copy)}"


def plan_table(steps: list[dict[str, Any]]) -> Table:
    table = plain_table("", "What", "Behind", "")
    for step in steps:
        lag = "" if step["lag_messages"] is None else f"{step['lag_messages']} messages"
        refused = Text(step["refused"], style="red") if step["refused"] else Text("can be done", style="green")
        table.add_row(str(step["number"]), step["text"], lag, refused)
    return table


def topology_toml(found: dict[str, Any]) -> str:
    """JSON's strings, lists of them and booleans are TOML's as well."""
    lines = [f"{name} = {json.dumps(found[name])}" for name in KINDS]
    for name, placement in found["partitions"].items():
        lines += ["", f"[partitions.{name}]"]
        lines += [f"{key} = {json.dumps(placement[key])}" for key in SETTINGS if placement.get(key) is not None]
        windows = ", ".join(f"{site} = {days}" for site, days in (placement.get("windows") or {}).items())
        lines.append(f"windows = {{ {windows} }}" if windows else "windows = {}")
    return "\n".join(lines) + "\n"


def _spool(site: dict[str, Any]) -> str:
    return f"{site['spooled']} messages" if site["spooled"] else "empty"


def _standing(here: bool) -> Text:
    return Text("here", style="green") if here else Text("away", style="bold red")


def _standing_of(copy: dict[str, Any]) -> str:
    window = f"{copy['window_days']} days" if copy["window_days"] else ""
    words = ("member" if copy["member"] else "", window, "" if copy["here"] else "away")
    return ", ".join(word for word in words if word) or "no member"


def _ms(value: float | None) -> str:
    return "no answer" if value is None else f"{value:.1f} ms"


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def _lease(age: float | None) -> str:
    return "not known" if age is None else f"renewed {age:.1f} s ago"


def _behind(copy: dict[str, Any]) -> str:
    if copy["lag_messages"] is None:
        return "not known"
    if not copy["lag_messages"] and not copy["lag_seconds"]:
        return "level" if copy["here"] else "level when last heard"
    return f"{copy['lag_messages']} messages, {_bytes(copy['lag_bytes'])}, {copy['lag_seconds']:.1f} s"


def _bytes(size: float) -> str:
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"
