from parley.passwords import HASH_OF_NOBODY, hash_password, matches


def test_a_password_matches_its_own_hash_only():
    hashed = hash_password("correct horse")
    assert matches(hashed, "correct horse")
    assert not matches(hashed, "correct horse ")
    assert not matches(None, "correct horse")


def test_the_hash_of_nobody_costs_as_much_as_any_other():
    assert HASH_OF_NOBODY.split("$")[0] == hash_password("correct horse").split("$")[0]
