"""A word with a Mozilla program from outside: its Marionette door, JSON with a length before it, on a port of this machine."""

import json
import socket
from typing import Any

ANSWER_S_MAX = 60.0
MESSAGE, ANSWER = 0, 1  # the first of the four things in a packet


class Marionette:
    """`script` runs JavaScript with the program's own rights."""

    def __init__(self, port: int) -> None:
        self._line = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S_MAX)
        self._came = b""
        self._number = 0
        hello = self._packet()
        assert hello["marionetteProtocol"] == 3, hello
        self.ask("WebDriver:NewSession", {})
        self.ask("Marionette:SetContext", {"value": "chrome"})

    def ask(self, word: str, given: dict[str, Any]) -> Any:
        self._number += 1
        data = json.dumps([MESSAGE, self._number, word, given]).encode()
        self._line.sendall(b"%d:%b" % (len(data), data))
        kind, number, error, answer = self._packet()
        assert (kind, number) == (ANSWER, self._number)
        assert error is None, error
        return answer

    def script(self, text: str, *given: object) -> Any:
        """The value of its `return`; promises are waited for."""
        return self.ask("WebDriver:ExecuteScript", {"script": text, "args": list(given), "sandbox": "system"})["value"]

    def _packet(self) -> Any:
        while b":" not in self._came:
            self._more()
        size, _, self._came = self._came.partition(b":")
        while len(self._came) < int(size):
            self._more()
        data, self._came = self._came[: int(size)], self._came[int(size) :]
        return json.loads(data)

    def _more(self) -> None:
        piece = self._line.recv(1 << 16)
        assert piece, "the program is gone"
        self._came += piece

    def close(self) -> None:
        self._line.close()
