"""The table of routes: all that can be asked of the administrator's door. The router (session.py) and the OpenAPI
document (openapi.py) are both made from it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from protocols.admin import joining as entry
from protocols.admin import model, undeleting
from protocols.admin import moving as arriving
from protocols.admin import sharing as rights
from protocols.admin.commands import (
    accounts,
    aliases,
    cluster,
    domains,
    groups,
    imports,
    joining,
    me,
    mending,
    moving,
    sharing,
    undelete,
    work,
)
from protocols.admin.door import Answer, Call, Door
from protocols.admin.port import Alias, Domain, Group, Overview, Topology

PREFIX = "/api/v1"
ME_PATH = f"{PREFIX}/me"  # asks for a person's own credentials instead of an administrator's
JOIN_PATH = f"{PREFIX}/cluster/join"  # asks for a token of its own kind instead of an administrator

Answers = Callable[[Door, Call], Awaitable[Answer]]
Streams = Callable[[Door, Call], AsyncIterator[Any]]


class Route(NamedTuple):
    """`body`: type of the JSON body, str for CSV, or bytes for messages as they come. `reply`: type of the JSON answer, or
    of each line of a stream. `status`: of success. Exactly one of `answers` and `streams`."""

    method: str
    path: str
    summary: str
    reply: Any = None
    answers: Answers | None = None
    streams: Streams | None = None
    query: Any = None
    body: Any = None
    status: int = 200


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("GET", "/domains", "Domains of the site", model.Domains, domains.show_all, query=model.DomainPaging),
    Route("POST", "/domains", "Add a domain", Domain, domains.add, body=model.NewDomain, status=201),
    Route("GET", "/domains/{domain}", "One domain", Domain, domains.show),
    Route("PATCH", "/domains/{domain}", "Change a domain", Domain, domains.change, body=model.DomainChange),
    Route("GET", "/domains/{domain}/dns", "What belongs into a domain's zone", model.Dns, domains.dns),
    Route("DELETE", "/domains/{domain}", "Remove a domain without addresses", None, domains.remove, status=204),

    Route("GET", "/accounts", "Accounts, ordered by address", model.Accounts, accounts.show_all, query=model.Paging),
    Route("POST", "/accounts", "Add an account", model.Account, accounts.add, body=model.NewAccount, status=201),
    Route("POST", "/accounts:import", "Add many accounts from a CSV", model.ImportLine, streams=imports.accounts, body=str),
    Route("GET", "/accounts/{address}", "One account", model.Account, accounts.show),
    Route("PATCH", "/accounts/{address}", "Rename, suspend, resume, make administrator", model.Account, accounts.change,
          body=model.AccountChange),
    Route("DELETE", "/accounts/{address}", "Remove an account", None, accounts.remove, status=204),
    Route("PUT", "/accounts/{address}/password", "Set the password", None, accounts.set_password,
          body=model.NewPassword, status=204),
    Route("GET", "/accounts/{address}/app-passwords", "Labels of the app passwords", model.AppPasswords,
          accounts.app_passwords),
    Route("POST", "/accounts/{address}/app-passwords", "Make an app password, shown only now", model.AppPassword,
          accounts.add_app_password, body=model.NewAppPassword, status=201),
    Route("DELETE", "/accounts/{address}/app-passwords/{label}", "Revoke an app password", None,
          accounts.revoke_app_password, status=204),

    Route("GET", "/accounts/{address}/mailboxes", "Mailboxes of an account", arriving.Mailboxes, moving.show_all),
    Route("POST", "/accounts/{address}/mailboxes", "Make a mailbox, if it is not there", arriving.MailboxShown, moving.add,
          body=arriving.NewMailbox, status=201),
    Route("GET", "/accounts/{address}/mailboxes/{mailbox}/contents", "Which messages a mailbox has", arriving.ContentsLine,
          streams=moving.contents),
    Route("POST", "/accounts/{address}/mailboxes/{mailbox}/messages", "Bring messages in from another system",
          arriving.Appended, moving.append, query=arriving.Command, body=bytes),

    Route("GET", "/me", "One's own settings, with one's own password or token", model.Me, me.show),
    Route("PATCH", "/me", "Change one's own settings", model.Me, me.change, body=model.MyChange),

    Route("GET", "/accounts/{address}/mailboxes/{mailbox}/rights", "Who may do what with a mailbox", rights.MailboxRights,
          sharing.show),
    Route("PUT", "/accounts/{address}/mailboxes/{mailbox}/rights/{identifier}", "What somebody may do with a mailbox",
          rights.MailboxRights, sharing.put, body=rights.NewRights),
    Route("DELETE", "/accounts/{address}/mailboxes/{mailbox}/rights/{identifier}", "Take somebody's rights away", None,
          sharing.remove, status=204),
    Route("GET", "/accounts/{address}/expunged", "Which expunged messages can be restored", undeleting.ExpungedLine,
          streams=undelete.show_all, query=undeleting.Wanted),
    Route("POST", "/accounts/{address}/expunged/restore", "Restore expunged messages", undeleting.Restored,
          undelete.restore, body=undeleting.Restore),

    Route("GET", "/aliases", "Aliases, ordered by address", model.Aliases, aliases.show_all, query=model.Paging),
    Route("POST", "/aliases", "Add an alias", Alias, aliases.add, body=model.NewAlias, status=201),
    Route("GET", "/aliases/{address}", "One alias", Alias, aliases.show),
    Route("DELETE", "/aliases/{address}", "Remove an alias", None, aliases.remove, status=204),

    Route("GET", "/groups", "Groups, ordered by address", model.Groups, groups.show_all, query=model.Paging),
    Route("POST", "/groups", "Add a group", Group, groups.add, body=model.NewGroup, status=201),
    Route("GET", "/groups/{address}", "One group", Group, groups.show),
    Route("DELETE", "/groups/{address}", "Remove a group", None, groups.remove, status=204),
    Route("GET", "/groups/{address}/members", "Members of a group", model.Members, groups.members),
    Route("PATCH", "/groups/{address}/members", "Add and remove members", model.Members, groups.change_members,
          body=model.MembersChange),

    Route("GET", "/cluster", "Sites, nodes, partitions, as this site sees them", Overview, cluster.show),
    Route("GET", "/cluster/topology", "Where every partition lies, to be applied again", Topology, cluster.topology),
    Route("PUT", "/cluster/topology", "Place partitions as the topology says", model.ClusterLine, streams=cluster.apply,
          query=model.PlanOnly, body=Topology),
    Route("POST", "/cluster/switchover", "Move homes without loss", model.ClusterLine, streams=cluster.switchover,
          body=model.Switchover),
    Route("POST", "/cluster/failover", "Take partitions over by force", model.ClusterLine, streams=cluster.failover,
          body=model.Failover),
    Route("POST", "/cluster/sites/{site}/drain", "Move all homes away from a site", model.ClusterLine,
          streams=cluster.drain_site, body=model.Drain),
    Route("POST", "/cluster/sites/{site}/remove", "Take a site out of the organisation for good", model.ClusterLine,
          streams=cluster.remove_site, body=model.Drain),
    Route("POST", "/cluster/nodes", "Start one more node at this site", model.ClusterLine, streams=cluster.add_node,
          body=model.Drain),
    Route("POST", "/cluster/nodes/{node}/remove", "Stop this site's last node for good", model.ClusterLine,
          streams=cluster.remove_node, body=model.Drain),
    Route("POST", "/cluster/nodes/{node}/drain", "Give a node's leases to others of its site", model.ClusterLine,
          streams=cluster.drain_node, body=model.Drain),
    Route("POST", "/cluster/partitions", "Make a partition", model.ClusterLine, streams=cluster.add,
          body=model.NewPartition),
    Route("PATCH", "/cluster/partitions/{partition}", "Home, copies and durability of a partition", model.ClusterLine,
          streams=cluster.change, body=model.PartitionChange),

    Route("GET", "/cluster/salvage", "What of lost tails is for an operator to settle", model.Reports, mending.show_all,
          query=model.ReportsWanted),
    Route("GET", "/cluster/salvage/{partition}/{position}", "One report, and what can be done", model.Report,
          mending.show),
    Route("PATCH", "/cluster/salvage/{partition}/{position}", "Settle a report", model.Report, mending.settle,
          body=model.Settle),
    Route("DELETE", "/cluster/salvage/{partition}/tails/{epoch}", "Say that nobody will bring the rest of a tail", None,
          mending.give_up, status=204),
    Route("POST", "/cluster/verify", "Compare what all sites have, and mend it", model.VerifyLine,
          streams=mending.verify, body=model.Verify),

    Route("POST", "/cluster/tokens", "Make a token by which a site may join, shown only now", entry.TokenGiven, joining.token,
          body=entry.NewToken, status=201),
    Route("POST", "/cluster/sites", "Let a site in: the same token", entry.TokenGiven, joining.add_site,
          body=entry.NewToken, status=201),
    Route("GET", "/cluster/join", "Whose door this is, for whoever has a token", entry.Hello, joining.hello),
    Route("POST", "/cluster/join", "Join with a token", entry.Joined, joining.join, body=entry.Join, status=201),
    Route("POST", "/cluster/sites/{site}/revoke", "Shut a site out for ever", entry.Revoked, joining.revoke),

    Route("GET", "/log", "Events as people read them", model.LogLine, streams=work.log, query=model.Tail),
    Route("GET", "/state", "Engines, partitions, what was put aside", model.State, work.state),
    Route("POST", "/rebuild", "Tables anew from the log", model.WorkLine, streams=work.rebuild),
    Route("POST", "/backup", "Back the site up, online", model.WorkLine, streams=work.backup, body=model.NewBackup),
)
# fmt: on


def variables(path: str) -> tuple[str, ...]:
    """Names of a path's variables, in order."""
    return tuple(piece.split("}")[0] for piece in path.split("{")[1:])
