"""The order of a confusion matrix, and its most confused pairs."""

import numpy as np

from mixer_jax.reporting.scores import confused_pairs, similarity_order


def test_classes_that_are_confused_are_neighbours():
    groups, n = [(0, 5, 9), (1, 7), (2, 4, 8), (3, 6)], 10
    counts = np.eye(n, dtype=int) * 50
    for group in groups:
        for i in group:
            for j in group:
                counts[i, j] += 10
    order = similarity_order(counts).tolist()
    assert sorted(order) == list(range(n))
    for group in groups:
        places = sorted(order.index(i) for i in group)
        assert places == list(range(places[0], places[0] + len(group)))


def test_any_number_of_classes_has_an_order():
    for n in (1, 2, 3, 400):
        assert sorted(similarity_order(np.zeros((n, n), int))) == list(range(n))


def test_the_most_frequent_mistakes_come_first():
    counts = np.array([[7, 3, 0], [0, 8, 2], [5, 0, 5]])
    assert confused_pairs(counts, ["a", "b", "c"]) == [
        ("c", "a", "5", "50.0%"),
        ("a", "b", "3", "30.0%"),
        ("b", "c", "2", "20.0%"),
    ]
    assert confused_pairs(np.eye(3, dtype=int), ["a", "b", "c"]) == []
