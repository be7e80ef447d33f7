"""config-v1.1.xml: asked by Thunderbird and all that learnt from it."""

from http import HTTPStatus

from cluster.domain.refusal import Refusal
from protocols.autoconfig import writer
from protocols.autoconfig.errors import SAID
from protocols.autoconfig.model import Answer, Door
from protocols.autoconfig.parser import domain_of, domain_of_host


async def configuration(door: Door, address: str, host: str) -> Answer:
    """`address`: as the query gives it, or empty; then the domain is that of `host`, the name the program came to."""
    asked = domain_of(address) if address else domain_of_host(host)
    domain = await door.domain(asked)
    if isinstance(domain, Refusal):
        return Answer(SAID[domain.reason][0], writer.refusal(domain.text or domain.reason.value))
    return Answer(HTTPStatus.OK, writer.thunderbird(domain.domain, door.offers))
