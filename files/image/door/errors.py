"""What a client is told when a request fails, in the shape of OpenAI's errors (https://platform.openai.com/docs/guides/error-codes)."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """
    A request that gets no answer.

    + status: HTTP status
    + message: one sentence for the client: what was found, and what is expected
    + param: the key of the request that it is about
    + code: a word for programs
    + retry_after_s: when another try may succeed
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The JSON document of the answer."""
        kinds = {
            401: "authentication_error",
            404: "not_found_error",
            429: "rate_limit_error",
        }
        default = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": kinds.get(self.status, default),
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """Its own headers."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


def unsupported(param: str, why: str) -> Refused:
    """The refusal of a parameter that this server cannot honour: it is never ignored."""
    return Refused(400, f"{param}: {why}", param, "unsupported_parameter")
