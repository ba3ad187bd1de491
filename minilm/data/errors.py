"""What is wrong with data, in one line for the person who gave it."""


class DataError(ValueError):
    """Data that cannot be used: what must hold; what was got; what to try.

    >>> print(DataError("a file must hold text", "an empty file", "give another"))
    a file must hold text; got an empty file; give another
    """

    def __init__(self, must, got, hint):
        super().__init__(f"{must}; got {got}; {hint}")
        self.got = got
