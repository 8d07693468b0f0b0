"""Nicknames: which are allowed, and which look alike. PRECIS, profile Nickname (RFC 8264 and RFC 8266)."""

import unicodedata

from precis_i18n import get_profile

from .refusals import Invalid

LONGEST = 32  # characters
LONGEST_KEY = 128  # characters; also those that are read of what somebody signs in with: each costs up to 0.1 ms
SHOWN = get_profile("NicknameCasePreserved")  # normalised to NFKC, and without needless spaces
# What PRECIS lets through although nothing is seen: the joiners of Indic scripts and Persian, which letters around them
# may make visible, and so are no more than left out of a key; and blanks that Unicode counts as symbols or marks.
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
BLANKS = (
    "\N{BRAILLE PATTERN BLANK}\N{OBJECT REPLACEMENT CHARACTER}\N{MUSICAL SYMBOL NULL NOTEHEAD}"
    "\N{KHITAN SMALL SCRIPT FILLER}"
)
UNSEEN = dict.fromkeys(map(ord, JOINERS + BLANKS))  # for str.translate


def check_nickname(nickname):
    """Return the nickname as it is stored and shown; raises Invalid.

    No colon, because HTTP Basic separates the password with one. No space at either end, because "ann" and "ann " look
    the same.
    """
    if not isinstance(nickname, str) or not 1 <= len(nickname) <= LONGEST:
        raise Invalid(f"A nickname has 1 to {LONGEST} characters.")
    if nickname != nickname.strip():
        raise Invalid("A nickname has no space at its beginning or end.")
    try:
        shown = SHOWN.enforce(nickname)
    except UnicodeEncodeError as error:
        raise Invalid(refusal(error.object[error.start])) from error
    if found := next((character for character in shown if character in BLANKS or character == ":"), None):
        raise Invalid(refusal(found))
    if len(shown) > LONGEST:
        raise Invalid(f"A nickname has at most {LONGEST} characters in Unicode's form NFKC. Choose a shorter one.")
    if unicodedata.category(shown[0]).startswith("M"):  # combining marks alone may be all but invisible
        raise Invalid("A nickname begins with a letter, a digit or a symbol.")
    return shown


def refusal(character):
    """Return the sentences about a character that no nickname has."""
    name = unicodedata.name(character, "a control character")
    return f"A nickname cannot contain the character U+{ord(character):04X} ({name}). Leave it out."


def nickname_key(nickname):
    """Return the form in which nicknames are compared (RFC 8266, section 2.4): look-alikes have the same one."""
    return unicodedata.normalize("NFKC", visible(nickname).casefold())[:LONGEST_KEY]


def visible(nickname):
    """Return what is seen of a nickname, which may be older than these rules and break them."""
    nickname = nickname[:LONGEST_KEY]
    try:
        shown = SHOWN.enforce(nickname)
    except UnicodeEncodeError:
        shown = "".join(filter(is_allowed, unicodedata.normalize("NFKC", nickname)))
    return " ".join(shown.translate(UNSEEN).split())


def is_allowed(character):
    """Return whether a nickname may contain this character."""
    try:
        SHOWN.enforce(f"a{character}")
    except UnicodeEncodeError:
        return False
    return True
