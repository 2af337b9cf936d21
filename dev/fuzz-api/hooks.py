"""What schemathesis can't know from the document."""

import re
import uuid

import schemathesis

KEY = "Idempotency-Key"


@schemathesis.hook
def before_call(context, case, kwargs):
    """A client never sends one key with two requests; malformed keys stay, to be refused."""
    for name in list(case.headers or {}):
        if name.lower() == KEY.lower() and re.fullmatch("[!-~]{1,255}", str(case.headers[name])):
            case.headers[name] = str(uuid.uuid4())
