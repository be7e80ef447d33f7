"""Passwords: how they are kept, checked, made and judged.

Two forms are kept of each: argon2id, which stands up to guessing by who steals the tables, and SCRAM-SHA-256 (RFC 5802,
RFC 7677), so that a client can prove its password without sending it. Hashing is done by argon2-cffi and hashlib in a few
threads of our own, which let go of the interpreter's lock; never on the event loop.

A success is remembered for an hour under a key that lives in this process only, because ten thousand clients that
reconnect would cost 250 core-seconds otherwise. What is remembered names the verifier too, so a changed or revoked
password is forgotten by that alone.
"""

import asyncio
import base64
import functools
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from scramp.core import ScramException, saslprep

from cluster.domain.directory.events import Verifier
from cluster.domain.refusal import Reason, Refusal
from cluster.world import World

# OWASP's profile for argon2id: 19 MiB, two passes, one lane: 25 ms of one core.
PASSWORD_COST = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16)
# A generated password has 72 random bits and cannot be guessed at any speed: dear hashing would only make sign-in slow
# for people with many devices, as each of their verifiers must be tried.
GENERATED_COST = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1, hash_len=32, salt_len=16)
# What is checked where there is no password, so that this takes as long. Nothing is known to fit it, and a fit is no success.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$mXw0pM3Vb7o0n7QvH5k0cw$p0uUQ3f3m1a0j9vKkM0m7cJx2V7w6m3yq8o5x1QeY0U"

# RFC 7677 §4 asks for at least 4,096. More is work for the client at every sign-in, and mail clients in JavaScript or on
# old telephones take a second for 100,000. Who holds the tables would guess at this form rather than at argon2.
SCRAM_ITERATIONS = 10_000
SCRAM_SALT_BYTES = 16
PASSWORD_CHARS_MIN = 8
PASSWORD_BYTES_MAX = 1024
REMEMBERED_S_MAX = 3600.0
REMEMBERED_MAX = 100_000
THREADS_MAX = 2
WAITING_MAX = 500
LETTERS = "abcdefghjkmnpqrstuvwxyz"  # without i, l, o: people copy them by hand
GROUPS, GROUP_LETTERS = 4, 4

PASSWORD_LABEL = "password"

T = TypeVar("T")


class CredentialsBusy(Exception):
    """More passwords wait to be checked than is any use: answer UNAVAILABLE."""


class Scram(NamedTuple):
    """RFC 5802 §3, what the server keeps. Bytes."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class Credentials:
    """Checks and makes verifiers. One for each process; `close` it at the end.

    `hmac_key`: the site's own secret; from it come the SCRAM salts of names that do not exist, so that they are the same
    at every worker and after every start."""

    def __init__(self, world: World, hmac_key: bytes, threads: int = THREADS_MAX) -> None:
        self._world = world
        self._hmac_key = hmac_key
        self._remembered = Remembered(world.monotonic, world.entropy(32))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="credentials")
        self._flying: dict[bytes, asyncio.Future[str | None]] = {}
        self._waiting = 0

    async def verify(self, verifiers: Sequence[tuple[str, Verifier]], account: int, password: str) -> str | None:
        """The label of the verifier that the password fits, or None. For an account that is not there give no verifiers:
        it takes as long. Raises CredentialsBusy."""
        prepared = prepare(password)
        if prepared is None:
            return None
        remembered = self._remembered
        keys = {label: remembered.key(account, prepared, verifier) for label, verifier in verifiers}
        for known, key in keys.items():
            if remembered.has(key):
                return known
        flight = remembered.flight(account, prepared, keys.values())
        flying = self._flying.get(flight)
        if flying is None:  # a device opens several connections at once: its password is checked once
            work = functools.partial(fitting, tuple(verifiers), prepared)
            flying = self._in_thread(work)
            self._flying[flight] = flying
            flying.add_done_callback(lambda _: self._flying.pop(flight, None))
        label = await asyncio.shield(flying)
        if label is not None:
            remembered.add(account, keys[label])
        return label

    async def make(self, password: str) -> Verifier:
        """What is kept of a password that a person chose. Raises ValueError where it cannot be one (`weakness` says
        why), CredentialsBusy."""
        return await self._make(password, PASSWORD_COST)

    async def make_generated(self, password: str) -> Verifier:
        """What is kept of a password that `generate` made. Raises CredentialsBusy."""
        return await self._make(password, GENERATED_COST)

    def generate(self) -> str:
        """An app password of 72 random bits: four groups of four letters."""
        letters: list[str] = []
        limit = 256 - 256 % len(LETTERS)  # so that every letter is as likely
        while len(letters) < GROUPS * GROUP_LETTERS:
            letters += [LETTERS[byte % len(LETTERS)] for byte in self._world.entropy(32) if byte < limit]
        return _grouped("".join(letters[: GROUPS * GROUP_LETTERS]))

    def weakness(self, password: str, address: str) -> Refusal | None:
        """Why a person may not have this password."""
        return weakness(password, address)

    def forget(self, account: int) -> None:
        """Drops what is remembered of an account, as any event about it asks for."""
        self._remembered.forget(account)

    def made_up(self, name: str) -> Scram:
        """SCRAM keys of a name that does not exist: the same for the same name, fitting no password (RFC 5802 §9)."""
        salt, stored, server = (
            hmac.digest(self._hmac_key, f"scram/{part}/{name}".encode("utf-8", "surrogatepass"), "sha256")
            for part in ("salt", "stored", "server")
        )
        return Scram(salt[:SCRAM_SALT_BYTES], SCRAM_ITERATIONS, stored, server)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _make(self, password: str, cost: PasswordHasher) -> Verifier:
        prepared = prepare(password)
        if prepared is None:
            raise ValueError("this cannot be a password")
        salts = self._world.entropy(cost.salt_len), self._world.entropy(SCRAM_SALT_BYTES)
        return await self._in_thread(lambda: _verifier(prepared, cost, salts))

    def _in_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        if self._waiting >= WAITING_MAX:
            raise CredentialsBusy(f"{self._waiting} passwords wait to be checked")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._landed)
        return future

    def _landed(self, _: object) -> None:
        self._waiting -= 1


class Remembered:
    """Successes of the last hour, at most REMEMBERED_MAX, the oldest go first."""

    def __init__(self, monotonic: Callable[[], float], key: bytes) -> None:
        self._monotonic = monotonic
        self._key = key
        self._successes: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._of_account: dict[int, set[bytes]] = {}

    def key(self, account: int, password: str, verifier: Verifier) -> bytes:
        return self._digest(str(account), password, verifier.argon2, verifier.scram_sha_256)

    def flight(self, account: int, password: str, keys: Iterable[bytes]) -> bytes:
        """Names one check of a password against all verifiers of an account."""
        return self._digest(str(account), password, *(key.hex() for key in keys))

    def has(self, key: bytes) -> bool:
        found = self._successes.get(key)
        if found is None:
            return False
        if self._monotonic() >= found[1]:
            self._drop(key)
            return False
        return True

    def add(self, account: int, key: bytes) -> None:
        self._drop(key)
        self._successes[key] = (account, self._monotonic() + REMEMBERED_S_MAX)
        self._of_account.setdefault(account, set()).add(key)
        while len(self._successes) > REMEMBERED_MAX:
            self._drop(next(iter(self._successes)))

    def forget(self, account: int) -> None:
        for key in tuple(self._of_account.get(account, ())):
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        account, _ = self._successes.pop(key, (0, 0.0))
        keys = self._of_account.get(account, set())
        keys.discard(key)
        if not keys:
            self._of_account.pop(account, None)

    def _digest(self, *parts: str) -> bytes:
        """Each part with its length before it, so that no two lists of parts are one text."""
        whole = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
        return hmac.digest(self._key, whole, "sha256")


def prepare(password: str) -> str | None:
    """RFC 4616 §2 and RFC 5802 §2.2: SASLprep before it is compared or hashed; signs that SASLprep does not know (it
    stopped at Unicode 3.2) stay as they are. None for what cannot be a password."""
    try:
        if not 0 < len(password.encode()) <= PASSWORD_BYTES_MAX or "\0" in password:
            return None
    except UnicodeEncodeError:
        return None
    try:
        return str(saslprep(password)) or None
    except ScramException:
        return password


def weakness(password: str, address: str) -> Refusal | None:
    prepared = prepare(password)
    if prepared is None:
        return Refusal(Reason.WEAK_PASSWORD, f"a password has 1 to {PASSWORD_BYTES_MAX} bytes and no NUL")
    if len(prepared) < PASSWORD_CHARS_MIN:
        return Refusal(Reason.WEAK_PASSWORD, f"the password is too short: at least {PASSWORD_CHARS_MIN} characters")
    if prepared.casefold() in (address.casefold(), address.casefold().rpartition("@")[0]):
        return Refusal(Reason.WEAK_PASSWORD, "the password is the address: choose another")
    if len(set(prepared)) == 1:
        return Refusal(Reason.WEAK_PASSWORD, "the password is one character again and again: choose another")
    return None


def fitting(verifiers: Sequence[tuple[str, Verifier]], password: str) -> str | None:
    """Which one the prepared password fits. Blocks for 25 ms, whoever is asked for: one dear check at the most."""
    generated = as_generated(password)
    if generated is not None:
        for label, verifier in verifiers:
            if label != PASSWORD_LABEL and _fits(verifier.argon2, generated):
                return label
    own = next((verifier.argon2 for label, verifier in verifiers if label == PASSWORD_LABEL), None)
    return PASSWORD_LABEL if _fits(own or NOBODY, password) and own else None


def as_generated(typed: str) -> str | None:
    """An app password as it was made, however people type it (no dashes, spaces, capitals); None for any other text."""
    letters = "".join(sign for sign in typed.lower() if sign not in " -")
    if len(letters) != GROUPS * GROUP_LETTERS or any(sign not in LETTERS for sign in letters):
        return None
    return _grouped(letters)


def scram_parts(kept: str) -> Scram | None:
    """What RFC 5803 §2 holds: SCRAM-SHA-256$iterations:salt$stored:server. None for what is not of this form."""
    scheme, _, rest = kept.partition("$")
    info, _, keys = rest.partition("$")
    iterations, _, salt = info.partition(":")
    stored, _, server = keys.partition(":")
    if scheme != "SCRAM-SHA-256" or not iterations.isdecimal():
        return None
    try:
        return Scram(_from64(salt), int(iterations), _from64(stored), _from64(server))
    except ValueError:
        return None


def _verifier(password: str, cost: PasswordHasher, salts: tuple[bytes, bytes]) -> Verifier:
    argon2_salt, salt = salts
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    # RFC 5802 §3: StoredKey := H(HMAC(SaltedPassword, "Client Key")), ServerKey := HMAC(SaltedPassword, "Server Key").
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept = f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{_to64(salt)}${_to64(stored)}:{_to64(server)}"  # RFC 5803 §2
    return Verifier(cost.hash(password, salt=argon2_salt), kept)


def _fits(argon2: str, password: str) -> bool:
    try:
        return PASSWORD_COST.verify(argon2, password)  # the costs are read from the hash
    except (VerificationError, InvalidHashError):
        return False


def _grouped(letters: str) -> str:
    return "-".join(letters[start : start + GROUP_LETTERS] for start in range(0, len(letters), GROUP_LETTERS))


def _to64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _from64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
