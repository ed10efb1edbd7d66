"""The fields of a config, and the ranges of their values."""

import math

import pytest

from mixer_jax.config import RULES, check, default_config, flat
from mixer_jax.errors import UserError


def test_every_rule_is_for_fields_that_exist_and_whose_defaults_obey_it():
    defaults = flat(default_config())
    for rule, (holds, fields) in RULES.items():
        for field in fields.split():
            assert field in defaults, rule
            assert defaults[field] is None or holds(defaults[field]), field


def test_no_field_has_two_rules():
    fields = " ".join(fields for _, fields in RULES.values()).split()
    assert len(fields) == len(set(fields))


@pytest.mark.parametrize("field", [name for name, value in flat(default_config()).items() if isinstance(value, float)])
def test_every_number_must_be_finite(field):
    config = default_config()
    config.update_from_flattened_dict({field: math.inf})
    with pytest.raises(UserError, match=f"config.{field}=inf"):
        check(config)


@pytest.mark.parametrize(
    ("field", "value", "edge"),
    [
        ("optimizer.learning_rate", 0.0, 1e-30),
        ("optimizer.weight_decay", -1e-30, 0.0),
        ("model.num_blocks", 1001, 1000),
        ("optimizer.b1", 1.0, 0.0),
        ("augment.erasing.probability", 1.0001, 1.0),
        ("augment.mixing.until", 0.0, 1.0),
        ("augment.inception.area", (0.5, 1.5), (0.5, 1.0)),
        ("augment.erasing.aspect", (2.0, 1.0), (2.0, 2.0)),
        ("epochs", -2.0, -1.0),
        ("dataset.bits", 7, 8),
    ],
)
def test_a_value_just_out_of_range_is_refused(field, value, edge):
    config = default_config()
    config.update_from_flattened_dict({field: edge})
    check(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"config.{field}="):
        check(config)
