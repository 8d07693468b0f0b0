"""What the application refuses, and why: no word about HTTP here, errors.py knows the status codes."""


class Refusal(Exception):
    """A request that can't be granted; its text is a sentence for the user."""


class Invalid(Refusal):
    """Something in the request is missing or malformed."""


class NotSignedIn(Refusal):
    """There is no good token, or no good nickname and password."""


class Forbidden(Refusal):
    """The user is known, and this is not theirs."""


class NotFound(Refusal):
    """There is no such thing."""


class Taken(Refusal):
    """Somebody else has this already."""


class TooMany(Refusal):
    """This was tried too often; retry_after is the number of seconds until it may be tried again."""

    def __init__(self, sentence, retry_after):
        super().__init__(sentence)
        self.retry_after = retry_after


class Overloaded(Refusal):
    """More requests wait than can be answered in time; retry_after is the seconds to wait until the next try."""

    def __init__(self, sentence, retry_after):
        super().__init__(sentence)
        self.retry_after = retry_after


class KeyReused(Refusal):
    """An idempotency key came back with another body."""


class Declined(Refusal):
    """Another service has refused, with this status; retry_after is what it said of trying again, if it did."""

    def __init__(self, sentence, status, retry_after=None):
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


class Unavailable(Refusal):
    """Another service that this one needs does not answer."""

    def __init__(self, service):
        super().__init__(f"This needs the {service} service, which does not answer. Please try again in a moment.")
