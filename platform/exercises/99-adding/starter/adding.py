def add_one(x):
    raise NotImplementedError("TODO 1: add one")
