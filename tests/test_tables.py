import pytest
import torch

from dlutils.tables import markdown_table, plus_minus


def test_numbers_stand_to_the_right_and_text_to_the_left():
    table = markdown_table([{"net": "mlp", "KL": 0.00123456}, {"net": "linear", "KL": 0.5}])
    assert table.splitlines() == [
        "| net | KL |",
        "| --- | ---: |",
        "| mlp | 0.001235 |",
        "| linear | 0.5 |",
    ]


def test_rows_must_agree():
    with pytest.raises(ValueError, match="at least one row"):
        markdown_table([])
    with pytest.raises(ValueError, match=r"the columns \['a'\], not \['b'\]"):
        markdown_table([{"a": 1}, {"b": 2}])


def test_a_mean_with_its_standard_error():
    values = torch.tensor([1.0, 2.0, 3.0])  # sd 1
    assert plus_minus(values) == "+2.0000 ± 0.5774"
    assert plus_minus(-values) == "-2.0000 ± 0.5774"
    assert plus_minus(values, "", 2) == "2.00 ± 0.58"
