def integers_in(text: str) -> list[int]:
    return [int(part) for part in text.split(',') if part]


def squares_in(text: str) -> list[int]:
    return [number * number for number in integers_in(text)]


def total_of_squares(text: str) -> int:
    return sum(squares_in(text))
